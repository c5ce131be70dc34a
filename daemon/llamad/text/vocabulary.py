"""The vocabulary of a model: tokens, their types and the special ids, checked once.

Owns the reading of the ``tokenizer.ggml.*`` metadata keys (GGUF specification, section
"Tokenizer") that every tokenizer shares. Does not split text: that is ``sentencepiece.py`` and
``bpe.py``.
"""

import enum
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from llamad.errors import ErrorKind, LlamadError
from llamad.logs import fields
from llamad.text.marker_names import is_end, is_template_marker

logger = logging.getLogger(__name__)

Metadata = Mapping[str, object]

PREFIX = "tokenizer.ggml."

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenType(enum.IntEnum):
    """What a token is for; the numbers of GGUF and of sentencepiece's model format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_MARKER_TYPES = (
    TokenType.NORMAL,
    TokenType.CONTROL,
    TokenType.USER_DEFINED,
    TokenType.UNUSED,
)


def corrupt(key: str, message: str) -> LlamadError:
    """Return the error for a tokenizer key that is missing, of the wrong type or out of range."""
    return LlamadError(ErrorKind.CORRUPT, "TOKENIZER_CORRUPT", f"{PREFIX}{key}: {message}")


def unsupported(message: str) -> LlamadError:
    """Return the error for a tokenizer this service does not implement; the message names it."""
    return LlamadError(ErrorKind.STATE, "TOKENIZER_UNSUPPORTED", message)


def text_value(metadata: Metadata, key: str) -> str | None:
    """Return a string of the metadata, None when the key is absent. Raises CORRUPT."""
    value = metadata.get(PREFIX + key)
    if value is not None and not isinstance(value, str):
        raise corrupt(key, f"is {type(value).__name__}, must be a string")
    return value


def bool_value(metadata: Metadata, key: str, default: bool) -> bool:
    """Return a flag of the metadata. Raises CORRUPT."""
    value = metadata.get(PREFIX + key, default)
    if not isinstance(value, bool):
        raise corrupt(key, f"is {type(value).__name__}, must be a bool")
    return value


def list_value(
    metadata: Metadata, key: str, types: type | tuple[type, ...]
) -> Sequence[object] | None:
    """Return an array of the metadata whose elements all have one of ``types``. Raises CORRUPT."""
    value = metadata.get(PREFIX + key)
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise corrupt(key, f"is {type(value).__name__}, must be an array")
    for i, element in enumerate(value):
        if not isinstance(element, types) or isinstance(element, bool):
            raise corrupt(key, f"element {i} is {type(element).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens in id order, their types, and the ids with a role (None: the model has none)."""

    tokens: Sequence[str]  # (vocab_size,); of a file a StringArray: not quite free to ask for
    types: bytes  # (vocab_size,) of TokenType
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    eom_id: int | None
    unk_id: int | None
    add_bos: bool  # when the caller does not say
    add_eos: bool
    end_ids: frozenset[int]  # any of these ends a generation

    def __len__(self) -> int:
        return len(self.tokens)

    def ids_of(self, *types: TokenType) -> list[int]:
        """Return the ids of all tokens of the given types, ascending."""
        return [i for i, kind in enumerate(self.types) if kind in types]

    @classmethod
    def from_metadata(
        cls, metadata: Metadata, *, default_ids: Mapping[str, int], add_bos_default: bool
    ) -> "Vocabulary":
        """Read and check the keys every tokenizer shares.

        default_ids: ids of a tokenizer family where the metadata names none, or one outside the
        vocabulary, such as ``{"bos": 1}``; ignored when outside the vocabulary themselves. Markers
        become control tokens, whatever type the file gives them. Raises LlamadError CORRUPT that
        names the key and the limit.
        """
        tokens = list_value(metadata, "tokens", str)
        if not tokens:
            raise corrupt("tokens", "is missing or empty")
        n = len(tokens)
        defaults = {name: value for name, value in default_ids.items() if value < n}
        ids = {
            name: special_id(metadata, key, n, defaults.get(name))
            for name, key in (
                ("bos", "bos_token_id"),
                ("eos", "eos_token_id"),
                ("eot", "eot_token_id"),
                ("eom", "eom_token_id"),
                ("unk", "unknown_token_id"),
                ("fim_pad", "fim_pad_token_id"),
                ("fim_repository", "fim_rep_token_id"),
                ("fim_separator", "fim_sep_token_id"),
            )
        }
        strings = cast(Sequence[str], tokens)
        types = bytearray(_types(metadata, strings, ids))
        names = frozenset(name for name in strings if name[:1] in "<[_")
        ends = {
            i for i, name in enumerate(strings) if types[i] in _MARKER_TYPES and is_end(name, names)
        }
        roles = {i for role, i in ids.items() if i is not None and role not in ("bos", "unk")}
        whole = {i for i in roles if types[i] == TokenType.USER_DEFINED}  # and so no plain text
        _type_markers(strings, types, ends | whole)
        return cls(
            tokens=strings,
            types=bytes(types),
            bos_id=ids["bos"],
            eos_id=ids["eos"],
            eot_id=ids["eot"],
            eom_id=ids["eom"],
            unk_id=ids["unk"],
            add_bos=bool_value(metadata, "add_bos_token", add_bos_default),
            add_eos=bool_value(metadata, "add_eos_token", False),
            end_ids=frozenset(ends | roles),
        )


def byte_of(token: str) -> int | None:
    """Return the byte that a token such as ``<0x0A>`` stands for, None if malformed."""
    match = _BYTE.fullmatch(token)
    return int(match[1], 16) if match else None


def special_id(metadata: Metadata, key: str, n_tokens: int, default: int | None) -> int | None:
    """Return the id of a role; the default where the file names none, or one outside. CORRUPT."""
    value = metadata.get(PREFIX + key, default)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise corrupt(key, f"is {type(value).__name__}, must be an integer")
    if not 0 <= value < n_tokens:  # converters wrote -1 for a role that the model has not
        logger.warning(
            fields(
                "special token outside the vocabulary ignored",
                key=PREFIX + key,
                id=value,
                vocab_size=n_tokens,
                used=default,
            )
        )
        return default
    return value


def _type_markers(tokens: Sequence[str], types: bytearray, ends: Iterable[int]) -> None:
    """Make control tokens of ends, and of what only a template writes, where they are text."""
    wrong = {i for i in ends if types[i] != TokenType.CONTROL}
    wrong |= {
        i
        for i, name in enumerate(tokens)
        if types[i] == TokenType.NORMAL and is_template_marker(name)
    }
    for i in wrong:
        types[i] = TokenType.CONTROL
    if wrong:
        logger.warning(
            fields(
                "markers that the file does not call control tokens are taken as such",
                tokens=len(wrong),
                first=tokens[min(wrong)],
            )
        )


def _types(metadata: Metadata, tokens: Sequence[str], ids: Mapping[str, int | None]) -> bytes:
    values = list_value(metadata, "token_type", int)
    if values is None:
        return _guessed_types(tokens, ids)
    if len(values) != len(tokens):
        raise corrupt("token_type", f"has {len(values)} elements, tokens has {len(tokens)}")
    for i, value in enumerate(cast(Sequence[int], values)):
        if not TokenType.NORMAL <= value <= TokenType.BYTE:
            raise corrupt("token_type", f"element {i} is {value}, must be 1..6")
    return bytes(cast(Sequence[int], values))


def _guessed_types(tokens: Sequence[str], ids: Mapping[str, int | None]) -> bytes:
    """Return types for a file that has none: roles and byte spellings decide."""
    types = bytearray(
        TokenType.NORMAL if byte_of(token) is None else TokenType.BYTE for token in tokens
    )
    for name, index in ids.items():
        if index is not None:
            types[index] = TokenType.UNKNOWN if name == "unk" else TokenType.CONTROL
    return bytes(types)
