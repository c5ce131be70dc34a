"""The texts of requests for vectors, which several APIs have alike."""

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
