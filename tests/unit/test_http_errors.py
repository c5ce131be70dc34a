"""The HTTP errors of what the service refuses."""

import pytest

from llamad_client import Refused
from llamad_http.errors import from_client_error, refusal_of_file


@pytest.mark.parametrize(
    ("reason", "status"), [("MODEL_IN_USE", 409), ("NO_MODEL", 503), ("BUSY_LOADING", 503)]
)
def test_a_state_that_passes_is_no_fault_of_the_request(reason: str, status: int) -> None:
    refused = Refused(reason, "a reason", 1.5)
    refused.code = "failed_precondition"
    error = from_client_error(refused)
    assert (error.status, error.retry_after_seconds) == (status, 1.5)


@pytest.mark.parametrize(
    ("code", "reason", "loaded", "named"),
    [
        ("failed_precondition", "MODEL_UNSUPPORTED", 500, 422),
        ("failed_precondition", "DRAFT_REFUSED", 400, 422),
        ("data_loss", "MODEL_CORRUPT", 500, 422),
        ("failed_precondition", "MODEL_IN_USE", 409, 409),
    ],
)
def test_a_file_that_a_request_names_is_its_fault(
    code: str, reason: str, loaded: int, named: int
) -> None:
    refused = Refused(reason, "a reason", None)
    refused.code = code
    assert (from_client_error(refused).status, refusal_of_file(refused).status) == (loaded, named)
