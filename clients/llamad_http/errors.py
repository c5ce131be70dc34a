"""What may go wrong with an HTTP request, before an API gives it its shape.

An ``HttpError`` has the status, a stable UPPER_SNAKE reason as the service's errors have, and a
line that names the field or the limit. ``from_client_error`` is the one table from the service's
errors.
"""

import re

from llamad_client import ClientError, StillLoading

_STATUS_OF_CODE = {
    "invalid_argument": 400,
    "not_found": 404,
    "permission_denied": 403,
    "failed_precondition": 400,
    "resource_exhausted": 429,
    "unimplemented": 501,
    "deadline_exceeded": 504,
    "unavailable": 503,
}
_STATUS_OF_REASON = {
    "NO_MODEL": 503,
    "BUSY_LOADING": 503,
    "OUT_OF_MEMORY": 503,
    "CANCELLED": 503,
    "UNKNOWN_CALLER": 503,
    "NO_PERMISSION": 503,  # of the gateway's user for the socket
    "NOT_GATEWAY": 503,
    "MODEL_IN_USE": 409,
    # Of the model that is loaded for everybody; of one that a request names see refusal_of_file.
    "MODEL_UNREADABLE": 500,
    "MODEL_UNSUPPORTED": 500,
    "TOKENIZER_UNSUPPORTED": 500,
}
_OF_A_FILE = ("data_loss", "failed_precondition")  # codes
DEFAULT_RETRY_SECONDS = 2.0
_TOO_LONG = re.compile(r"prompt has (\d+) tokens\D*(\d+)")


class HttpError(Exception):
    """A request that is answered with an error.

    field: of the request, where one is at fault. retry_after_seconds: where waiting helps.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds


def prompt_sizes(error: HttpError) -> dict[str, int]:
    """Return llama-server's fields for a prompt that is too long, none for another error."""
    found = _TOO_LONG.search(error.message) if error.reason == "PROMPT_TOO_LONG" else None
    return {} if found is None else {"n_prompt_tokens": int(found[1]), "n_ctx": int(found[2])}


def invalid(field: str, message: str) -> HttpError:
    """Return the error for a field of a request that is wrong."""
    reason = "INVALID_" + "".join(c if c.isalnum() else "_" for c in field).upper()
    return HttpError(400, reason, f"{field}: {message}", field=field)


def not_supported(field: str, message: str = "is not supported") -> HttpError:
    """Return the error for a field whose value this gateway cannot honour."""
    return HttpError(400, "NOT_SUPPORTED", f"{field}: {message}", field=field)


def busy(message: str, reason: str = "TOO_MANY_REQUESTS") -> HttpError:
    """Return the error for what one of the gateway's own limits refuses for now."""
    return HttpError(503, reason, message, retry_after_seconds=DEFAULT_RETRY_SECONDS)


def from_client_error(error: ClientError) -> HttpError:
    """Return the HTTP error of a call to the service that failed."""
    status = _STATUS_OF_REASON.get(error.reason) or _STATUS_OF_CODE.get(error.code, 500)
    retry_after = error.retry_after_seconds
    if retry_after is None and (status == 503 or isinstance(error, StillLoading)):
        retry_after = DEFAULT_RETRY_SECONDS
    return HttpError(status, error.reason, error.message, retry_after_seconds=retry_after)


def refusal_of_file(error: ClientError) -> HttpError:
    """Return the HTTP error of a call about a model that the request names.

    A file that is broken, not for this engine or too large for this machine stays so. Programs send
    408, 409, 429 and 5xx again, by themselves, and a 422 never.
    """
    found = from_client_error(error)
    of_file = error.code in _OF_A_FILE and found.status in (400, 500)
    too_large = error.reason == "OUT_OF_MEMORY" and error.retry_after_seconds is None
    if of_file or too_large:
        return HttpError(422, error.reason, error.message, field="model")
    return found
