"""``/tokenize`` and ``/detokenize``: their requests and answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llamad_http.fields import Fields


@dataclass(frozen=True, slots=True)
class Text:
    """What is to be tokenized, and how."""

    content: str
    add_special: bool
    parse_special: bool
    with_pieces: bool


def read_text(body: Fields) -> Text:
    """Return what a request wants tokenized. Raises HttpError."""
    return Text(
        content=body.text("content") or "",
        add_special=body.flag("add_special") or False,
        parse_special=body.flag("parse_special") is not False,
        with_pieces=body.flag("with_pieces") or False,
    )


def tokens_body(pieces: Sequence[tuple[int, bytes]], *, with_pieces: bool) -> dict[str, Any]:
    """Return the tokens; a piece that is no UTF-8 is a list of its bytes."""
    if not with_pieces:
        return {"tokens": [token for token, _ in pieces]}
    return {"tokens": [{"id": token, "piece": _piece(piece)} for token, piece in pieces]}


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def read_tokens(body: Fields) -> list[int]:
    """Return the tokens of a request. Raises HttpError."""
    if "tokens" not in body:
        raise body.wrong("tokens", "must be a list of tokens")
    return body.tokens("tokens")
