"""Errors in llama-server's shape."""

import re
from typing import Any

from llamad_http.errors import HttpError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_TOO_LONG = re.compile(r"prompt has (\d+) tokens\D*(\d+)")


def error_body(error: HttpError) -> dict[str, Any]:
    """Return the JSON of an error."""
    kind = _TYPES.get(error.status)
    if kind is None:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
    body: dict[str, Any] = {"code": error.status, "message": error.message, "type": kind}
    if error.reason == "PROMPT_TOO_LONG":
        body["type"] = "exceed_context_size_error"
        if match := _TOO_LONG.search(error.message):
            body |= {"n_prompt_tokens": int(match[1]), "n_ctx": int(match[2])}
    return {"error": body}
