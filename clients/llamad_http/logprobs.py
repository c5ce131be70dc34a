"""How likely tokens were: the fields that ask for it, and the forms in which each API tells it.

A token that only ends an answer has no text and is left out, as OpenAI does. JSON has no infinity:
what is impossible has OpenAI's -9999.
"""

import math
from collections.abc import Sequence
from typing import Any

from llamad_client import TokenLogprob
from llamad_client.request import Options
from llamad_http.completion import Answer
from llamad_http.fields import Fields

MAX_LIKELIEST = 20
IMPOSSIBLE = -9999.0


def read_logprobs(body: Fields, options: Options) -> None:
    """Set what ``logprobs`` and ``top_logprobs`` ask for, as chats have them. Raises HttpError."""
    n = body.integer("top_logprobs", 0, MAX_LIKELIEST)
    if body.flag("logprobs"):
        options["logprobs"] = n or 0
    elif n:
        raise body.wrong("top_logprobs", "needs logprobs to be true")


def entries(logprob: TokenLogprob | None) -> list[dict[str, Any]]:
    """Return a token as the lists of chats have it: one entry, or none."""
    if logprob is None or not logprob.piece:
        return []
    return [{**entry(logprob), "top_logprobs": [entry(one) for one in logprob.likeliest]}]


def entry(logprob: TokenLogprob) -> dict[str, Any]:
    """Return a token, without those in its place."""
    return {
        "token": piece_text(logprob.piece),
        "logprob": finite(logprob.logprob),
        "bytes": [*logprob.piece],
    }


def piece_text(piece: bytes) -> str:
    """Return the text of a token; where it is no whole characters, its bytes as OpenAI does."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)


def finite(logprob: float) -> float:
    """Return a number that JSON has."""
    return logprob if math.isfinite(logprob) else IMPOSSIBLE


def of_answer(answer: Answer) -> list[TokenLogprob]:
    """Return what is told of a whole answer: its tokens, without those of a stop string."""
    told = [logprob for logprob in answer.logprobs if logprob.piece]
    if answer.end.finish_reason != "stop_string":
        return told
    text = answer.text.encode()
    n_bytes = sum(len(logprob.piece) for logprob in told)
    if told and told[0].piece.startswith(b" ") and not text.startswith(b" "):
        n_bytes -= 1  # a vocabulary whose texts begin with a space that is not shown
    while told and n_bytes - len(told[-1].piece) >= len(text):
        n_bytes -= len(told.pop().piece)
    return told


def columns(told: Sequence[TokenLogprob], offset: int, *, n_likeliest: int) -> dict[str, Any]:
    """Return tokens as ``/v1/completions`` has them: a list for each kind of number.

    offset: characters in front of the first. What a first token of a text has no number for (its
    logprob is NaN) is null.
    """
    offsets = []
    for logprob in told:
        offsets.append(offset)
        offset += sum(byte & 0xC0 != 0x80 for byte in logprob.piece)
    known = [not math.isnan(logprob.logprob) for logprob in told]
    pairs = list(zip(told, known, strict=True))
    return {
        "tokens": [piece_text(logprob.piece) for logprob in told],
        "token_logprobs": [finite(one.logprob) if sure else None for one, sure in pairs],
        "top_logprobs": [_by_text(one) if sure else None for one, sure in pairs]
        if n_likeliest
        else None,
        "text_offset": offsets,
    }


def _by_text(logprob: TokenLogprob) -> dict[str, float]:
    """Return the likeliest tokens by their text, and the token itself in any case."""
    return {piece_text(one.piece): finite(one.logprob) for one in (*logprob.likeliest, logprob)}
