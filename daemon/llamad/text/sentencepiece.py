"""Tokenizing with a SentencePiece vocabulary (``tokenizer.ggml.model`` = "llama" or "t5").

The sentencepiece library does the work, on a model rebuilt from the metadata of the GGUF file.
Where the space prefix goes is decided here, as llama.cpp does: before the text and after each
special token.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from llamad.printable import quoted
from llamad.text.charsmap import fault_of
from llamad.text.sentencepiece_model import BPE, UNIGRAM, Normalization, serialize_model
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

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_SPACE = "▁"
_DEFAULT_IDS = {"unk": 0, "bos": 1, "eos": 2}

# The library needs 60 bytes of memory per byte of one call. Longer text is cut before a space,
# where no piece of a LLaMA vocabulary reaches across; text without spaces is cut where it must be.
_MAX_CHARACTERS = 65536


class SentencePieceTokenizer(Tokenizer):
    """A BPE vocabulary with scores, "▁" for a space and bytes for what it has no piece for."""

    _model_type = BPE

    def __init__(self, metadata: Metadata) -> None:
        """Rebuild the model. Raises LlamadError CORRUPT that names the key."""
        vocabulary = Vocabulary.from_metadata(
            metadata, default_ids=_DEFAULT_IDS, add_bos_default=True
        )
        super().__init__(vocabulary, lambda token: token.replace(_SPACE, " "))
        self.adds_space_prefix = bool_value(metadata, "add_space_prefix", True)
        self._normalization = _normalization(metadata, self.adds_space_prefix)
        self._bytes = _byte_tokens(vocabulary)
        scores = _scores(metadata, len(vocabulary))
        try:
            self._processor = _processor(
                self._model_type, vocabulary, scores, bool(self._bytes), self._normalization
            )
        except RuntimeError as error:
            raise corrupt("tokens", f"sentencepiece refuses the vocabulary: {error}") from None

    def _encode_text(self, text: str, after_special: bool) -> Sequence[int]:
        if after_special and self.adds_space_prefix and not self._normalization.adds_space_prefix:
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


class UnigramTokenizer(SentencePieceTokenizer):
    """A vocabulary whose scores are log-probabilities: the likeliest pieces are taken.

    Kudo, "Subword Regularization", arXiv 1804.10959, section 3.2.
    """

    _model_type = UNIGRAM


def _normalization(metadata: Metadata, adds_space_prefix: bool) -> Normalization:
    """Read what the library does to a text; the space prefix only where it would remove ours."""
    charsmap = cast(Sequence[int], list_value(metadata, "precompiled_charsmap", int) or ())
    for i, value in enumerate(charsmap):
        if not -128 <= value <= 255:
            raise corrupt("precompiled_charsmap", f"element {i} is {value}, must be a byte")
    blob = bytes(value & 0xFF for value in charsmap)
    if blob and (fault := fault_of(blob)):
        raise corrupt("precompiled_charsmap", fault)
    removes = bool_value(metadata, "remove_extra_whitespaces", False)
    return Normalization(blob, removes, removes and adds_space_prefix)


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
                "tokens", f"byte token {i} is {quoted(vocabulary.tokens[i])}, not <0x00>..<0xFF>"
            )
        result[i] = byte
    missing = set(range(256)) - set(result.values()) if result else ()
    if missing:
        raise corrupt(
            "tokens", f"no byte token <0x{min(missing):02X}>, a vocabulary has all or none"
        )
    return result


def _processor(
    model_type: int,
    vocabulary: Vocabulary,
    scores: Sequence[float],
    byte_fallback: bool,
    normalization: Normalization,
) -> "SentencePieceProcessor":
    """Return the library's model. Raises RuntimeError when it refuses the vocabulary.

    Few vocabularies have a text twice, and finding it takes 150 bytes a token: only where the
    library refused.
    """
    # Imported here: it takes 3 MiB, and vocabularies of other kinds do not need it.
    from sentencepiece import SentencePieceProcessor

    unk_id = next(iter(vocabulary.ids_of(TokenType.UNKNOWN)), vocabulary.unk_id or 0)
    absent = -1
    bos_id = absent if vocabulary.bos_id is None else vocabulary.bos_id
    eos_id = absent if vocabulary.eos_id is None else vocabulary.eos_id

    def model(*, find_repeated: bool) -> bytes:
        return serialize_model(
            model_type,
            _pieces(vocabulary, scores, unk_id, find_repeated),
            byte_fallback=byte_fallback,
            special_ids=(unk_id, bos_id, eos_id),
            normalization=normalization,
        )

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model(find_repeated=False))
    except RuntimeError:
        processor.LoadFromSerializedProto(model(find_repeated=True))
    return processor


def _pieces(
    vocabulary: Vocabulary, scores: Sequence[float], unk_id: int, find_repeated: bool
) -> Iterator[tuple[str, float, int]]:
    """Yield the text, score and type of each token, as sentencepiece takes them.

    It wants texts that are unique and not empty, and one unknown token. A token beyond that gets a
    placeholder no text can match, so that ids stay what they are.
    """
    seen: set[str] = set()
    rows = zip(vocabulary.tokens, scores, vocabulary.types, strict=True)
    for i, (text, score, kind) in enumerate(rows):
        unknown = i == unk_id
        if text in seen or not text or (kind == TokenType.UNKNOWN and not unknown):
            text, kind = f"<unreachable token {i}>", TokenType.CONTROL
        if find_repeated:
            seen.add(text)
        yield text, score, TokenType.UNKNOWN if unknown else kind
