"""Tokenizing with a SentencePiece vocabulary (``tokenizer.ggml.model`` = "llama").

The sentencepiece library does the work, on a model rebuilt from the metadata of the GGUF file.
Where the space prefix goes is decided here, as llama.cpp does: before the text and after each
special token.
"""

import math
from collections.abc import Iterator, Sequence
from typing import cast

from llamad.text.sentencepiece_model import serialize_bpe_model
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import (
    Metadata,
    TokenType,
    Vocabulary,
    bool_value,
    byte_of,
    corrupt,
    list_value,
)

_SPACE = "▁"
_DEFAULT_IDS = {"unk": 0, "bos": 1, "eos": 2}

# The library needs 60 bytes of memory per byte of one call. Longer text is cut before a space,
# where no piece of a LLaMA vocabulary reaches across; text without spaces is cut where it must be.
_MAX_CHARACTERS = 65536


class SentencePieceTokenizer(Tokenizer):
    """A BPE vocabulary with scores, "▁" for a space and bytes for what it has no piece for."""

    def __init__(self, metadata: Metadata) -> None:
        """Rebuild the model. Raises LlamadError CORRUPT that names the key."""
        vocabulary = Vocabulary.from_metadata(
            metadata, default_ids=_DEFAULT_IDS, add_bos_default=True
        )
        super().__init__(vocabulary, lambda token: token.replace(_SPACE, " "))
        self.adds_space_prefix = bool_value(metadata, "add_space_prefix", True)
        self._bytes = _byte_tokens(vocabulary)
        # Imported here: it takes 3 MiB, and vocabularies of other kinds do not need it.
        from sentencepiece import SentencePieceProcessor

        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(
                _model(vocabulary, _scores(metadata, len(vocabulary)), bool(self._bytes))
            )
        except RuntimeError as error:
            raise corrupt("tokens", f"sentencepiece refuses the vocabulary: {error}") from None

    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        if after_special and self.adds_space_prefix:
            text = " " + text
        ids: list[int] = []
        for chunk in _chunks(text):
            ids.extend(cast(list[int], self._processor.EncodeAsIds(chunk)))
        return ids

    def _text_piece(self, token: int, text: str) -> bytes:
        byte = self._bytes.get(token)
        if byte is not None:
            return bytes((byte,))
        return text.replace(_SPACE, " ").encode("utf-8", "surrogateescape")


def _chunks(text: str) -> Iterator[str]:
    """Yield ``text`` in parts of at most _MAX_CHARACTERS, cut before a space where there is one."""
    start = 0
    while len(text) - start > _MAX_CHARACTERS:
        end = start + _MAX_CHARACTERS
        space = text.rfind(" ", start + 1, end)
        while space > start and text[space - 1] == " ":  # a run of spaces stays whole
            space -= 1
        end = space if space > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _scores(metadata: Metadata, n_tokens: int) -> Sequence[float]:
    scores = cast(Sequence[float] | None, list_value(metadata, "scores", (int, float)))
    if scores is None or len(scores) != n_tokens:
        count = "is missing" if scores is None else f"has {len(scores)} elements"
        raise corrupt("scores", f"{count}, tokens has {n_tokens}")
    for i, score in enumerate(scores):
        if not math.isfinite(score):
            raise corrupt("scores", f"element {i} is {score}")
    return scores


def _byte_tokens(vocabulary: Vocabulary) -> dict[int, int]:
    """Return token id -> byte of all 256 byte tokens, or of none. Raises CORRUPT."""
    result: dict[int, int] = {}
    for i in vocabulary.ids_of(TokenType.BYTE):
        byte = byte_of(vocabulary.tokens[i])
        if byte is None:
            raise corrupt(
                "tokens", f"byte token {i} is {vocabulary.tokens[i]!r}, not <0x00>..<0xFF>"
            )
        result[i] = byte
    missing = set(range(256)) - set(result.values()) if result else ()
    if missing:
        raise corrupt(
            "tokens", f"no byte token <0x{min(missing):02X}>, a vocabulary has all or none"
        )
    return result


def _model(vocabulary: Vocabulary, scores: Sequence[float], byte_fallback: bool) -> bytes:
    """Return the ModelProto.

    sentencepiece wants texts that are unique and not empty, and one unknown token. A token beyond
    that gets a placeholder no text can match, so that ids stay what they are.
    """
    unk_id = next(iter(vocabulary.ids_of(TokenType.UNKNOWN)), vocabulary.unk_id or 0)
    pieces: list[tuple[str, float, int]] = []
    seen: set[str] = set()
    for i, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)):
        unknown = i == unk_id
        if text in seen or not text or (kind == TokenType.UNKNOWN and not unknown):
            text, kind = f"<unreachable token {i}>", TokenType.CONTROL
        if unknown:
            kind = TokenType.UNKNOWN
        seen.add(text)
        pieces.append((text, scores[i], kind))
    absent = -1
    bos_id = absent if vocabulary.bos_id is None else vocabulary.bos_id
    eos_id = absent if vocabulary.eos_id is None else vocabulary.eos_id
    return serialize_bpe_model(
        pieces, byte_fallback=byte_fallback, special_ids=(unk_id, bos_id, eos_id)
    )
