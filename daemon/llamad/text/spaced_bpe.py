"""BPE over characters (``tokenizer.ggml.model`` = "gemma4"): lines of text, merged pair by pair.

Spaces become U+2581, text is cut at newlines only, a character is a symbol, and a character that no
token spells becomes its UTF-8 bytes as tokens <0x00>..<0xFF>. A run of newlines that is a token is
taken whole. (Gemma 4's tokenizer.json: its normalizer, its pre-tokenizer and ``byte_fallback``.)
"""

import re
from collections.abc import Sequence

from llamad.printable import quoted
from llamad.text.bpe import Merges, text_ids
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import Metadata, TokenType, Vocabulary, corrupt, text_value, unsupported

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_LINES = re.compile(r"[^\n]+|\n+")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_MAX_LINE_CHARACTERS = 16384  # longer ones are cut: memory stays bounded, the text stays the same
_MERGED = -1  # of ``Merges``; a character without a token is -2 and less


class SpacedBpeTokenizer(Tokenizer):
    """A BPE vocabulary whose tokens are spelled as text, with U+2581 for a space."""

    def __init__(self, metadata: Metadata) -> None:
        """Read vocabulary and merges.

        Raises LlamadError CORRUPT that names the key, STATE for an unknown pre-tokenizer.
        """
        if (pre := text_value(metadata, "pre")) not in (None, "gemma4"):
            raise unsupported(f"tokenizer.ggml.pre is {quoted(pre)}, must be 'gemma4' or absent")
        vocabulary = Vocabulary.from_metadata(metadata, default_ids={}, add_bos_default=True)
        super().__init__(vocabulary, lambda token: token.replace(_SPACE, " "))
        ids = text_ids(vocabulary)
        self._merges = Merges(metadata, vocabulary, ids)
        # Of characters and runs of newlines: all others come out of merges.
        self._ids = {text: i for text, i in ids.items() if len(text) == 1 or not text.strip("\n")}
        self._bytes = {
            i: int(match[1], 16)
            for i in vocabulary.ids_of(TokenType.BYTE, TokenType.NORMAL)
            if (match := _BYTE.fullmatch(vocabulary.tokens[i]))
        }
        self._byte_ids = {byte: i for i, byte in self._bytes.items()}
        if len(self._byte_ids) != 256:
            raise corrupt("tokens", f"has {len(self._byte_ids)} of the 256 bytes <0x00>..<0xFF>")

    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        ids: list[int] = []
        for match in _LINES.finditer(text.replace(" ", _SPACE)):
            line = match[0]
            whole = self._ids.get(line) if line[0] == "\n" else None
            if whole is not None:
                ids.append(whole)
                continue
            for start in range(0, len(line), _MAX_LINE_CHARACTERS):
                ids.extend(self._line_ids(line[start : start + _MAX_LINE_CHARACTERS]))
        return ids

    def _line_ids(self, line: str) -> list[int]:
        ids: list[int] = []
        for symbol in self._merges.apply([self._ids.get(c, -2 - ord(c)) for c in line]):
            if symbol >= 0:
                ids.append(symbol)
            elif symbol != _MERGED:
                ids.extend(self._byte_ids[byte] for byte in chr(-2 - symbol).encode())
        return ids

    def _text_piece(self, token: int, text: str) -> bytes:
        byte = self._bytes.get(token)
        if byte is not None:
            return bytes((byte,))
        return text.replace(_SPACE, " ").encode("utf-8", "surrogateescape")
