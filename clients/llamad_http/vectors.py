"""The texts of requests for vectors, and ``pooling``, which several APIs have alike."""

from typing import get_args

from llamad_client.request import Pooling
from llamad_http.errors import not_supported
from llamad_http.fields import Fields


def read_texts(body: Fields, name: str) -> list[str]:
    """Return the texts of a field whose vectors are wanted. Raises HttpError."""
    value = body.get(name)
    if isinstance(value, list) and value and not all(isinstance(text, str) for text in value):
        raise not_supported(name, "tokens are not supported, only texts are")
    texts = body.texts(name)
    if not texts or not all(texts):
        raise body.wrong(name, "must be a text that is not empty, or a list of such")
    return texts


def read_pooling(body: Fields) -> Pooling | None:
    """Return which of a text's tokens make its vector; None: as the model has it. HttpError."""
    wanted = body.text("pooling")
    found: Pooling | None = next((one for one in get_args(Pooling) if one == wanted), None)
    if wanted is not None and found is None:
        allowed = ", ".join(get_args(Pooling))
        raise body.wrong("pooling", f"must be one of {allowed}, is {wanted[:64]!r}")
    return found
