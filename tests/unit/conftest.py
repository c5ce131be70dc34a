"""Settings of the tests of these folders: the same examples each time, no time limits."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("llamad", deadline=None, derandomize=True)
settings.load_profile("llamad")


@pytest.fixture(autouse=True, scope="session")
def _patient_templates() -> Iterator[None]:
    """Give a model's chat template the time that a busy machine may take to compile it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamad.text.template_process._REQUEST_SECONDS", 60.0)
        yield
