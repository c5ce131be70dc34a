"""Tokenizing with a WordPiece vocabulary, BERT's (``tokenizer.ggml.model`` = "bert").

A text is cut into words: at white space, at each punctuation character and each ideograph. A word
becomes the longest pieces that it begins with, one after the other (Wu et al., arXiv 1609.08144,
section 4.1), or the unknown token as a whole. The rules of the words are those of the BERT paper's
``BasicTokenizer`` (arXiv 1810.04805), with and without lower case.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import Metadata, TokenType, Vocabulary, bool_value, special_id

_WORD_START = "▁"  # what a GGUF file has in front of a piece that begins a word
_DEFAULT_IDS = {"unk": 100, "bos": 101, "eos": 102}
_MAX_WORD = 100  # characters; a longer one is unknown
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPieceTokenizer(Tokenizer):
    """Words and their pieces; a text is between the tokens [CLS] and [SEP]."""

    adds_space_prefix = True

    def __init__(self, metadata: Metadata) -> None:
        """Read the vocabulary. Raises LlamadError CORRUPT that names the key."""
        vocabulary = Vocabulary.from_metadata(
            metadata, default_ids=_DEFAULT_IDS, add_bos_default=True
        )
        n = len(vocabulary)
        bos_id = special_id(metadata, "cls_token_id", n, vocabulary.bos_id)
        eos_id = special_id(metadata, "seperator_token_id", n, vocabulary.eos_id)  # as GGUF has it
        types = bytearray(vocabulary.types)
        for role in (bos_id, eos_id):
            if role is not None:
                types[role] = TokenType.CONTROL
        super().__init__(
            replace(vocabulary, bos_id=bos_id, eos_id=eos_id, add_eos=True, types=bytes(types)),
            lambda token: token.removeprefix(_WORD_START),
        )
        self._lower = bool_value(metadata, "normalizer.lowercase", True)
        self._strips = bool_value(metadata, "normalizer.strip_accents", self._lower)
        self._ids = {
            token: i
            for i, token in enumerate(vocabulary.tokens)
            if self.vocabulary.types[i] == TokenType.NORMAL
        }
        self._longest = max(map(len, self._ids), default=0)

    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        ids: list[int] = []
        for word in self._words(text):
            pieces = self._pieces(_WORD_START + word) if len(word) <= _MAX_WORD else None
            if pieces is not None:
                ids += pieces
            elif self.vocabulary.unk_id is not None:
                ids.append(self.vocabulary.unk_id)
        return ids

    def _pieces(self, word: str) -> list[int] | None:
        """Return the longest pieces from left to right; None when they do not reach the end."""
        ids: list[int] = []
        begin = 0
        while begin < len(word):
            for end in range(min(len(word), begin + self._longest), begin, -1):
                token = self._ids.get(word[begin:end])
                if token is not None:
                    ids.append(token)
                    begin = end
                    break
            else:
                return None
        return ids

    def _words(self, text: str) -> Iterator[str]:
        if self._strips:
            text = unicodedata.normalize("NFD", text)
        word: list[str] = []
        for character in text:
            category = unicodedata.category(character)
            if character in "\t\n\r" or category == "Zs":
                kind = " "
            elif (
                category in ("Cc", "Cf", "Co", "Cs")
                or character == "\ufffd"
                or (self._strips and category == "Mn")
            ):
                continue
            elif _is_word(character, category):
                kind = character
            else:
                word.append(character.lower() if self._lower else character)
                continue
            if word:
                yield "".join(word)
                word.clear()
            if kind != " ":
                yield character
        if word:
            yield "".join(word)

    def _text_piece(self, token: int, text: str) -> bytes:
        begins_word = text.startswith(_WORD_START)
        return (" " + text[1:] if begins_word else text).encode("utf-8", "surrogateescape")


def _is_word(character: str, category: str) -> bool:
    """Whether a character is a word of its own: punctuation, or an ideograph."""
    code = ord(character)
    if code < 0x80:
        return 0x21 <= code <= 0x7E and not character.isalnum()
    return category[0] == "P" or any(first <= code <= last for first, last in _IDEOGRAPHS)
