"""What every tokenizer does alike: special tokens, BOS and EOS, checks, and ids back to text.

A subclass brings ``_encode_text`` (plain text to ids) and ``_text_piece`` (the bytes of a token
that is text). Tokenizers are immutable after construction: any thread may use them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from llamad.errors import invalid
from llamad.text.special_tokens import SpecialTokens
from llamad.text.vocabulary import TokenType, Vocabulary


class Tokenizer(ABC):
    """Text to token ids and back."""

    #: Whether the vocabulary marks the start of a text with a space that is no part of it.
    adds_space_prefix: bool = False

    def __init__(self, vocabulary: Vocabulary, surface: Callable[[str], str] = str) -> None:
        """``surface`` turns a user-defined token of the vocabulary into the text it matches."""
        self.vocabulary = vocabulary
        self.special = SpecialTokens(vocabulary, surface)

    @property
    def vocab_size(self) -> int:
        """Token ids are 0..vocab_size-1."""
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a sequence."""
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a sequence."""
        return self.vocabulary.eos_id

    @property
    def eot_id(self) -> int | None:
        """The token that ends a turn of a conversation."""
        return self.vocabulary.eot_id

    @property
    def eom_id(self) -> int | None:
        """The token that ends a message but not the turn."""
        return self.vocabulary.eom_id

    def encode(
        self, text: str, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Return the ids of ``text``.

        add_bos: put BOS in front; None does what the model's metadata says, for BOS and for EOS at
        the end; a BOS that the text itself begins with (parse_special) is not doubled.
        parse_special: find control tokens in the text.
        Raises LlamadError INVALID for a lone surrogate.
        """
        check_unicode("text", text)
        ids = self.encode_parts(self.special.split(text, parse_special))
        parsed_bos = parse_special and self.bos_id is not None and ids[:1] == [self.bos_id]
        if (self.vocabulary.add_bos if add_bos is None else add_bos) and not parsed_bos:
            ids = self._with_bos(ids)
        if add_bos is not False and self.vocabulary.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def encode_rendered(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of a rendered chat, BOS as the metadata says, never doubled, no EOS.

        parts: ids of special tokens and plain text; see ``content_guard.py``.
        """
        ids = self.encode_parts(parts)
        if self.vocabulary.add_bos and ids[:1] != [self.bos_id]:
            ids = self._with_bos(ids)
        return ids

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Return the text of ``ids`` without the space prefix; U+FFFD for bytes that are no UTF-8.

        special: show control tokens by name. Raises LlamadError INVALID for an id outside the
        vocabulary.
        """
        data = b"".join([self.piece(token, special) for token in ids])
        if self.adds_space_prefix:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def piece(self, token: int, special: bool = False) -> bytes:
        """Return the bytes of one token as generated text: part of a UTF-8 character, at worst.

        Control and unknown tokens are no text and give b"", or their names when ``special``.
        Raises LlamadError INVALID for an id outside the vocabulary.
        """
        if not 0 <= token < len(self.vocabulary):
            raise invalid(
                "token", f"id {token} is outside the vocabulary of {self.vocab_size} tokens"
            )
        text = self.vocabulary.tokens[token]
        match self.vocabulary.types[token]:
            case TokenType.CONTROL | TokenType.UNKNOWN:
                return text.encode("utf-8", "surrogateescape") if special else b""
            case _:
                return self._text_piece(token, text)

    def is_end_of_generation(self, token: int) -> bool:
        """Whether the model ends its answer with this token."""
        return token in self.vocabulary.end_ids

    def _with_bos(self, ids: list[int]) -> list[int]:
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of special tokens and the plain texts between them, and no others."""
        ids: list[int] = []
        after_special = True
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                ids.extend(self._encode_text(part, after_special))
            after_special = isinstance(part, int)
        return ids

    @abstractmethod
    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        """Return the ids of plain, non-empty text.

        after_special: the text stands at the beginning or after a special token.
        """

    @abstractmethod
    def _text_piece(self, token: int, text: str) -> bytes:
        """Return the bytes of a token that is text, spelled ``text`` in the vocabulary."""


def check_unicode(field: str, text: str) -> None:
    """Raise LlamadError INVALID when ``text`` has a lone surrogate, which no model can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(
            field,
            f"character {error.start} is the lone surrogate U+{ord(text[error.start]):04X}",
        ) from None
