"""The HTTP errors of what the service refuses."""

import pytest

from llamad_client import Refused
from llamad_http.errors import from_client_error


@pytest.mark.parametrize(
    ("reason", "status"), [("MODEL_UNSUPPORTED", 409), ("NO_MODEL", 503), ("BUSY_LOADING", 503)]
)
def test_a_state_that_passes_is_no_fault_of_the_request(reason: str, status: int) -> None:
    refused = Refused(reason, "a reason", 1.5)
    refused.code = "failed_precondition"
    error = from_client_error(refused)
    assert (error.status, error.retry_after_seconds) == (status, 1.5)
