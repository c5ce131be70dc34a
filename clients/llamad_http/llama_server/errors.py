"""Errors in llama-server's shape."""

from typing import Any

from llamad_http.errors import HttpError, prompt_sizes

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def error_body(error: HttpError) -> dict[str, Any]:
    """Return the JSON of an error."""
    kind = _TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
    body: dict[str, Any] = {"code": error.status, "message": error.message, "type": kind}
    if error.reason == "PROMPT_TOO_LONG":
        body["type"] = "exceed_context_size_error"
    return {"error": body | prompt_sizes(error)}
