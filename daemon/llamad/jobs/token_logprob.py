"""How likely a token of a completion was, and which were likeliest in its place: packed in bytes.

A transcript keeps them for every token, and as objects they would take ten times the memory.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = struct.Struct("<idH")  # id, natural log-probability, bytes of the piece


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its natural log-probability. piece: its bytes; of a control token none."""

    token: int
    logprob: float
    piece: bytes


def pack_logprobs(entries: Iterable[TokenLogprob]) -> bytes:
    """Return a token that was drawn, and behind it the likeliest ones, as bytes."""
    return b"".join(
        _HEAD.pack(entry.token, entry.logprob, len(entry.piece)) + entry.piece for entry in entries
    )


def unpack_logprobs(data: bytes) -> list[TokenLogprob]:
    """Return what was packed. Raises ValueError."""
    entries, at = [], 0
    while at < len(data):
        try:
            token, logprob, n_bytes = _HEAD.unpack_from(data, at)
        except struct.error as error:
            raise ValueError(f"probabilities of tokens: {error}") from None
        at += _HEAD.size
        entries.append(TokenLogprob(token, logprob, data[at : at + n_bytes]))
        at += n_bytes
    if at != len(data):
        raise ValueError("probabilities of tokens: the last piece is cut")
    return entries
