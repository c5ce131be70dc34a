"""``/embedding``: vectors as llama-server's own address has them, a list for each text.

The service's vectors have length 1 (Euclidean), and every other norm of theirs is that of the
unnormalized ones, so ``embd_normalize`` is computed here. What it cannot be is no norm at all.
"""

from collections.abc import Sequence
from typing import Any

from llamad_client import Embedding
from llamad_http.errors import not_supported
from llamad_http.fields import Fields
from llamad_http.vectors import read_texts

EUCLIDEAN = 2
MOST = 32760
"""Of the largest number, with ``embd_normalize`` 0: the vectors are for 16-bit integers."""


def read_contents(body: Fields) -> list[str]:
    """Return the texts whose vectors are wanted; ``input`` goes before ``content``, as there."""
    return read_texts(body, "content" if body.get("input") is None else "input")


def read_norm(body: Fields) -> int:
    """Return by which norm vectors are divided: 0 the largest number, else the exponent."""
    norm = body.integer("embd_normalize", -1, 1 << 31)
    if norm == -1:
        raise not_supported("embd_normalize", "vectors that are not normalized are not kept")
    return EUCLIDEAN if norm is None else norm


def embedding_body(vectors: Sequence[Embedding], norm: int) -> list[dict[str, Any]]:
    """Return the answer."""
    return [
        {"index": index, "embedding": [_normalized(vector.values, norm)]}
        for index, vector in enumerate(vectors)
    ]


def _normalized(values: Sequence[float], norm: int) -> list[float]:
    """Return a vector of Euclidean length 1 divided by another norm."""
    largest = max(map(abs, values), default=0.0)
    if norm == EUCLIDEAN or not largest:
        return list(values)
    if norm == 0:
        length = largest / MOST
    else:  # by the largest number first, whose powers neither overflow nor vanish
        length = largest * sum((abs(value) / largest) ** norm for value in values) ** (1 / norm)
    return [value / length for value in values]
