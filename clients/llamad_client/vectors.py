"""Vectors of texts, and the order in which texts answer a question, as values."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of a text, of length 1."""

    index: int  # of the text
    values: Sequence[float]
    tokens: int  # that were read
    truncated_tokens: int  # at the end of the text, that were not
    model: str


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """How well a document answers a question."""

    index: int  # of the document
    score: float  # 0..1
    truncated_tokens: int  # at its end, that were not read


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents in the order in which they answer a question, the best first."""

    results: Sequence[RankedDocument]
    prompt_tokens: int  # that were read of all documents, each with the question
    model: str
