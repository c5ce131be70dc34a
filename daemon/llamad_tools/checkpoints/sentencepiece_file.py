"""A tokenizer.model of sentencepiece: pieces, scores and types, as GGUF metadata.

Reads the protobuf wire format itself (encoding.md of protobuf; field numbers of
sentencepiece_model.proto), for the library does not tell user-defined pieces nor whether a space is
put before a text, and its protobuf classes clash with the installed protobuf runtime.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.source import Metadata, corrupt, unsupported

_FIXED32 = 5  # wire type
_BPE = 2  # TrainerSpec.ModelType
_MAX_FILE_BYTES = 8 << 20  # Llama 2's has 0.5 MB, one of 262,144 pieces 4.7 MB


@dataclass(slots=True)
class SentencePieceVocabulary:
    """Pieces in id order with "▁" for a space; ids with a role are -1 where there is none."""

    pieces: list[str]
    scores: list[float]
    types: list[int]  # TokenType
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    adds_space_prefix: bool = True

    def metadata(self) -> Metadata:
        """Return the tokenizer's metadata; BOS is put before a text, as LLaMA models want it."""
        result: Metadata = {
            PREFIX + "model": "llama",
            PREFIX + "pre": "default",
            PREFIX + "tokens": self.pieces,
            PREFIX + "scores": self.scores,
            PREFIX + "token_type": self.types,
            PREFIX + "add_space_prefix": self.adds_space_prefix,
            PREFIX + "add_bos_token": True,
            PREFIX + "add_eos_token": False,
        }
        roles = {
            "bos": self.bos_id,
            "eos": self.eos_id,
            "unknown": self.unk_id,
            "padding": self.pad_id,
        }
        for role, token in roles.items():
            if 0 <= token < len(self.pieces):
                result[PREFIX + role + "_token_id"] = token
        return result

    def pad(self, n_tokens: int) -> None:
        """Name the rows of the embedding that the vocabulary leaves unused."""
        for token in range(len(self.pieces), n_tokens):
            self.append(f"[PAD{token}]", TokenType.UNUSED)

    def append(self, text: str, kind: TokenType) -> None:
        """Add a token after the last one; it is never merged from others."""
        self.pieces.append(text)
        self.scores.append(-1000.0)
        self.types.append(kind)


def is_sentencepiece(path: Path) -> bool:
    """Say whether the file begins as a ModelProto does: with a piece."""
    with path.open("rb") as file:
        return file.read(1) == b"\x0a"  # field 1, bytes


def read_vocabulary(path: Path) -> SentencePieceVocabulary:
    """Read a tokenizer.model.

    Raises LlamadError: CHECKPOINT_CORRUPT for a file that is none, CHECKPOINT_UNSUPPORTED for a
    model that is no BPE.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise corrupt(path, f"is larger than {_MAX_FILE_BYTES} bytes: no sentencepiece model")
        if not is_sentencepiece(path):
            raise unsupported(path, "is no sentencepiece model")
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise corrupt(path, error.strerror or "cannot be read") from None
    except (ValueError, struct.error) as error:
        raise corrupt(path, f"is a broken sentencepiece model: {error}") from None


def _parse(path: Path, data: bytes) -> SentencePieceVocabulary:
    vocabulary = SentencePieceVocabulary([], [], [])
    model_type = 1  # unigram, the default of the field
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            _add_piece(vocabulary, value)
        elif field == 2 and isinstance(value, bytes):
            spec = {number: item for number, item in _fields(value) if isinstance(item, int)}
            model_type = spec.get(3, model_type)
            vocabulary.unk_id = _signed(spec.get(40, 0))
            vocabulary.bos_id = _signed(spec.get(41, 1))
            vocabulary.eos_id = _signed(spec.get(42, 2))
            vocabulary.pad_id = _signed(spec.get(43, -1))
        elif field == 3 and isinstance(value, bytes):
            vocabulary.adds_space_prefix = bool(dict(_fields(value)).get(3, 1))
    if not vocabulary.pieces:
        raise corrupt(path, "has no pieces")
    if model_type != _BPE:
        raise unsupported(path, f"is a sentencepiece model of type {model_type}, only BPE (2) is")
    return vocabulary


def _add_piece(vocabulary: SentencePieceVocabulary, data: bytes) -> None:
    text, score, kind = b"", 0.0, int(TokenType.NORMAL)
    for field, value in _fields(data):
        match field, value:
            case 1, bytes():
                text = value
            case 2, float():
                score = value
            case 3, int():
                kind = TokenType(value)
    vocabulary.pieces.append(text.decode("utf-8"))
    vocabulary.scores.append(score)
    vocabulary.types.append(int(kind))


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield field number and value of a message; raises ValueError where it is broken.

    Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes (here: a float).
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        match key & 7:
            case 0:
                value, position = _varint(data, position)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, position = _varint(data, position)
            case 5:
                length = 4
            case other:
                raise ValueError(f"wire type {other} at byte {position}")
        chunk = data[position : position + length]
        if len(chunk) != length:
            raise ValueError(f"cut short at byte {position}")
        position += length
        yield key >> 3, struct.unpack("<f", chunk)[0] if key & 7 == _FIXED32 else chunk


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError(f"cut short at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"an integer of more than ten bytes at byte {position}")


def _signed(value: int) -> int:
    """Return an int32 that protobuf wrote as ten bytes when it was negative."""
    return value - (1 << 64) if value >= 1 << 63 else value
