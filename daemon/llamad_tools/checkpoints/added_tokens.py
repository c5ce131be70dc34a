"""Tokens that were added to a vocabulary after its training, from a Hugging Face folder.

Owns the three places where different versions of transformers wrote them, and whether such a token
is a control token. What a vocabulary does with them is up to its own file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.json_file import read_json
from llamad_tools.checkpoints.source import corrupt

_ROLES = ("bos_token", "eos_token", "pad_token")
_FURTHER = ("additional_special_tokens", "extra_special_tokens")  # lists without roles

# What ought to be a control token but is marked as text in files of known models; the list is that
# of llama.cpp's converter (does_token_look_special), so that both give a token the same type.
_SPECIAL_TEXTS = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
_SPECIAL_ENDS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is matched as a whole. kind: CONTROL, UNKNOWN or USER_DEFINED."""

    text: str
    kind: TokenType


def read_added_tokens(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[int, AddedToken]:
    """Return added tokens by id; content: tokenizer.json, settings: tokenizer_config.json.

    Raises LlamadError CHECKPOINT_CORRUPT for an entry without id and text.
    """
    roles = read_optional(folder / "special_tokens_map.json")
    special = {role_text(name, settings, roles) for name in _ROLES}
    special.update(_further_texts(roles), _further_texts(settings))
    unknown = role_text("unk_token", settings, roles)
    result: dict[int, AddedToken] = {}
    for token, text, is_special in (
        *_from_map(folder),
        *_from_tokenizer(folder, content),
        *_from_settings(folder, settings),
    ):
        kind = TokenType.USER_DEFINED
        if is_special or text in special or _looks_special(text):
            kind = TokenType.UNKNOWN if text == unknown else TokenType.CONTROL
        result[token] = AddedToken(text, kind)
    return result


def role_text(name: str, settings: Mapping[str, Any], roles: Mapping[str, Any]) -> str | None:
    """Return the text of the token with a role, such as "bos_token"; roles: special_tokens_map."""
    for place in (settings, roles):
        match place.get(name):
            case str(text) | {"content": str(text)}:
                return text
    return None


def read_optional(path: Path) -> Mapping[str, Any]:
    """Return a JSON file's object, an empty one when there is no file."""
    return read_json(path) if path.is_file() else {}


def _further_texts(place: Mapping[str, Any]) -> Iterator[str]:
    for name in _FURTHER:
        entries = place.get(name)
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case str(text) | {"content": str(text)}:
                    yield text


def _from_map(folder: Path) -> Iterator[tuple[int, str, bool]]:
    path = folder / "added_tokens.json"
    for text, token in read_optional(path).items():
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise corrupt(path, f"token {text!r} has id {token!r}")
        yield token, text, False


def _from_tokenizer(folder: Path, content: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    path = folder / "tokenizer.json"
    entries = content.get("added_tokens") or []
    for entry in entries if isinstance(entries, list) else [entries]:
        match entry:
            case {"id": int(token), "content": str(text)} if token >= 0:
                yield token, text, bool(entry.get("special"))
            case _:
                raise corrupt(path, f"added token {entry!r} has no id and content")


def _from_settings(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[int, str, bool]]:
    path = folder / "tokenizer_config.json"
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise corrupt(path, "added_tokens_decoder is no object")
    for key, entry in decoder.items():
        match entry:
            case {"content": str(text)} if key.isdecimal():
                yield int(key), text, bool(entry.get("special"))
            case _:
                raise corrupt(path, f"added token {key!r} has no id and content: {entry!r}")


def _looks_special(text: str) -> bool:
    return text in _SPECIAL_TEXTS or any(
        text.startswith(start) and text.endswith(end) for start, end in _SPECIAL_ENDS
    )
