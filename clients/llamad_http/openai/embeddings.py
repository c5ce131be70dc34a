"""``/v1/embeddings``: the request and its answer."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

from llamad_client import Embedding
from llamad_http.fields import Fields

FORMATS = ("float", "base64")


def read_format(body: Fields) -> str:
    """Return how a vector is written; openai's library asks for base64. Raises HttpError."""
    written = body.text("encoding_format") or "float"
    if written not in FORMATS:
        raise body.wrong("encoding_format", f"must be one of {', '.join(FORMATS)}, is {written!r}")
    return written


def embeddings_body(vectors: Sequence[Embedding], model: str, written: str) -> dict[str, Any]:
    """Return the answer."""
    tokens = sum(vector.tokens for vector in vectors)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector.values, written)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _written(values: Sequence[float], written: str) -> list[float] | str:
    if written == "float":
        return list(values)
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
