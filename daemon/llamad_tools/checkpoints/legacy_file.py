"""Files of llama.cpp from before GGUF: magic "ggml", "ggmf" version 1, "ggjt" versions 1 to 3.

Layout (llama_load of llama.cpp, March to August 2023): magic, version but for "ggml", seven int32
hyperparameters, the vocabulary (with scores but for "ggml"), then tensors until the end, in "ggjt"
with their weights aligned to 32 bytes. Models of more than one shard were first converted shard by
shard, into FILE, FILE.1 and so on. Names and the order of rows are those of Meta's checkpoints.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from llamad.engine.bindings import TENSOR_TYPES, row_bytes
from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.legacy_blocks import (
    BLOCK,
    LAYOUTS,
    BlockLayout,
    is_plausible,
    row_as_blocks,
    unpack,
)
from llamad_tools.checkpoints.llama_folder import gguf_name, join_parts
from llamad_tools.checkpoints.sentencepiece_file import SentencePieceVocabulary
from llamad_tools.checkpoints.source import (
    Checkpoint,
    Rows,
    SourceFile,
    SourceTensor,
    corrupt,
    unsupported,
)

MAGICS = {0x67676D6C: "ggml", 0x67676D66: "ggmf", 0x67676A74: "ggjt"}
_VERSIONS = {"ggml": range(0, 1), "ggmf": range(1, 2), "ggjt": range(1, 4)}
_ALIGNMENT = 32  # bytes, of the weights in "ggjt"

# The ids of those days are those of GGUF; later types never stood in such files.
_TYPES = {TENSOR_TYPES[name]: name for name in ("F32", "F16", *LAYOUTS)}
_K_TYPES = {  # "ggjt" 3 only
    TENSOR_TYPES[name]: name for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
}
_GGUF_BLOCKS = 3  # the version of "ggjt" whose blocks are GGUF's

_MAX_VOCAB, _MAX_TOKEN_BYTES, _MAX_NAME_BYTES = 1 << 20, 1 << 16, 256
_FIRST_BYTE_TOKEN, _FIRST_TEXT_TOKEN = 3, 259  # of LLaMA's vocabulary
_SPECIAL = (
    ("<unk>", TokenType.UNKNOWN),
    ("<s>", TokenType.CONTROL),
    ("</s>", TokenType.CONTROL),
)

# The files do not say; LLaMA 1 was trained on as many, and it was the programs' default.
_N_CTX, _N_CTX_GROUPED = 2048, 4096  # grouped heads: Llama 2 70B

_REPLACEMENT = "\ufffd".encode()  # how the first converter wrote bytes that are no characters
_LAST_SCORE = -1e9  # of spaces in LLaMA's vocabulary: their runs are merged last

_SAMPLED_ROWS = 32  # of a matrix, to recognize how its rows are laid out


@dataclass(frozen=True, slots=True)
class _Header:
    magic: str
    version: int
    n_vocab: int
    dim: int
    n_heads: int
    n_layers: int

    def norm_eps(self, *, is_grouped: bool) -> float:
        """Return the epsilon of RMSNorm, which the files do not hold.

        LLaMA 1 has 1e-6. Llama 2 with 1e-5 came in the time of "ggjt" 3, and only it has grouped
        heads (70B); for what may be either, llama.cpp's own converter of such files
        (convert_llama_ggml_to_gguf.py, --eps) takes 5e-6.
        """
        if is_grouped:
            return 1e-5
        return 5e-6 if (self.magic, self.version) == ("ggjt", 3) else 1e-6


class _Reader:
    """A position in the file that moves forward."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.position = 0

    def read(self, n_bytes: int) -> bytes:
        data = self.file.read(self.position, n_bytes)
        self.position += n_bytes
        return data

    def integers(self, n: int) -> tuple[int, ...]:
        return struct.unpack(f"<{n}i", self.read(4 * n))


def is_legacy(path: Path) -> bool:
    """Say whether a file begins with the magic of one of the formats."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(4), "little") in MAGICS


def open_legacy_file(path: Path, *, keep_types: bool) -> Checkpoint:
    """Read everything but the weights.

    keep_types: quantized tensors become GGUF's blocks of the same type; else their values. Raises
    LlamadError that names the file and the fault.
    """
    files = ExitStack()
    try:
        header, vocabulary, tensors = _open_part(path, files, keep_types)
        parts = [tensors, *_further_parts(path, header, tensors, files, keep_types)]
        joined = list(_join(path, parts))
        numbers = _hyperparameters(path, header, joined)
        numbers.check(path)
        if numbers.vocab_size != len(vocabulary.pieces):
            raise corrupt(
                path,
                f"vocabulary has {len(vocabulary.pieces)} tokens, the embedding "
                f"{numbers.vocab_size}",
            )
        metadata = {**numbers.metadata(), **vocabulary.metadata()}
        return Checkpoint(metadata, numbers.arrange(path, joined), files)
    except BaseException:
        files.close()
        raise


def _open_part(
    path: Path, files: ExitStack, keep_types: bool
) -> tuple[_Header, SentencePieceVocabulary, dict[str, SourceTensor]]:
    file = SourceFile(path)
    files.callback(file.close)
    reader = _Reader(file)
    header = _read_header(reader)
    vocabulary = _read_vocabulary(reader, header)
    tensors = {tensor.name: tensor for tensor in _read_tensors(reader, header, keep_types)}
    return header, vocabulary, tensors


def _read_header(reader: _Reader) -> _Header:
    path = reader.file.path
    (number,) = reader.integers(1)
    magic = MAGICS.get(number)
    if magic is None:
        raise unsupported(path, f"begins with {number:#010x}: no magic of a ggml file")
    version = 0 if magic == "ggml" else reader.integers(1)[0]
    if version not in _VERSIONS[magic]:
        raise unsupported(path, f"is {magic} version {version}, not one of {[*_VERSIONS[magic]]}")
    n_vocab, dim, _multiple_of, n_heads, n_layers, n_rot, _file_type = reader.integers(7)
    limits = (("n_vocab", n_vocab, _MAX_VOCAB), ("n_embd", dim, 1 << 17), ("n_head", n_heads, 1024))
    for name, value, limit in (*limits, ("n_layer", n_layers, 1024)):
        if not 0 < value <= limit:
            raise corrupt(path, f"{name} is {value}, must be 1 to {limit}")
    if dim != n_rot * n_heads:
        raise corrupt(path, f"n_embd {dim} is not n_head {n_heads} times n_rot {n_rot}")
    return _Header(magic, version, n_vocab, dim, n_heads, n_layers)


def _read_vocabulary(reader: _Reader, header: _Header) -> SentencePieceVocabulary:
    vocabulary = SentencePieceVocabulary([], [], [])
    for token in range(header.n_vocab):
        (n_bytes,) = reader.integers(1)
        if not 0 <= n_bytes <= _MAX_TOKEN_BYTES:
            raise corrupt(reader.file.path, f"token {token} has {n_bytes} bytes")
        text, kind = _token(token, reader.read(n_bytes))
        score = default_score(token, text)
        if header.magic != "ggml":
            (score,) = struct.unpack("<f", reader.read(4))
        vocabulary.pieces.append(text)
        vocabulary.scores.append(score)
        vocabulary.types.append(kind)
    return vocabulary


def default_score(token: int, text: str) -> float:
    """Return the score of LLaMA's vocabulary, for files without any: ranks of its text tokens."""
    if not text.strip("▁"):
        return _LAST_SCORE
    return float(-max(token - _FIRST_TEXT_TOKEN, 0))


def _token(token: int, data: bytes) -> tuple[str, TokenType]:
    """Return piece and type: the files hold text as it is printed, "▁" and byte names resolved."""
    if token < len(_SPECIAL):
        return _SPECIAL[token]
    if not data:
        return f"<empty token {token}>", TokenType.UNUSED
    if _FIRST_BYTE_TOKEN <= token < _FIRST_TEXT_TOKEN:
        if len(data) == 1:
            return f"<0x{data[0]:02X}>", TokenType.BYTE
        if data == _REPLACEMENT:
            return f"<0x{token - _FIRST_BYTE_TOKEN:02X}>", TokenType.BYTE
    return data.decode("utf-8", "surrogateescape").replace(" ", "▁"), TokenType.NORMAL


def _read_tensors(reader: _Reader, header: _Header, keep_types: bool) -> Iterator[SourceTensor]:
    path = reader.file.path
    while reader.position < reader.file.n_bytes:
        n_dims, name_bytes, type_id = reader.integers(3)
        if n_dims not in (1, 2) or not 0 < name_bytes <= _MAX_NAME_BYTES:
            raise corrupt(path, f"tensor at byte {reader.position - 12} has no sane header")
        dims = reader.integers(n_dims)
        name = reader.read(name_bytes).decode("utf-8", "replace")
        if min(dims) <= 0:
            raise corrupt(path, f"{name} has dimensions {dims}")
        if header.magic == "ggjt":
            reader.position += -reader.position % _ALIGNMENT
        tensor, n_bytes = _tensor(reader, header, name, dims[::-1], type_id, keep_types)
        reader.position += n_bytes
        if reader.position > reader.file.n_bytes:
            raise corrupt(path, f"{name} reaches beyond the end of the file: cut short?")
        yield tensor


def _tensor(
    reader: _Reader,
    header: _Header,
    name: str,
    shape: tuple[int, ...],
    type_id: int,
    keep_types: bool,
) -> tuple[SourceTensor, int]:
    """Return a tensor whose weights begin at the reader's position, and their bytes."""
    file, offset = reader.file, reader.position
    modern = header.version == _GGUF_BLOCKS
    type_name = _TYPES.get(type_id) or (_K_TYPES.get(type_id) if modern else None)
    if type_name is None:
        raise unsupported(
            file.path,
            f"{name} has type {type_id}, which is not supported in {header.magic} {header.version}",
        )
    n_cols = shape[-1]
    layout = None if modern else LAYOUTS.get(type_name)
    if layout is not None and n_cols % BLOCK == 0:
        n_bytes = n_cols // BLOCK * layout.block_bytes
    else:
        n_bytes = 0 if layout is not None else row_bytes(type_name, n_cols)
    if n_bytes == 0:
        raise corrupt(file.path, f"{name} has rows of {n_cols}, which {type_name} cannot hold")

    def read_rows(start: int, stop: int) -> Rows:
        data = file.read(offset + start * n_bytes, (stop - start) * n_bytes)
        return np.frombuffer(data, np.uint8).reshape(stop - start, n_bytes)

    n_rows = shape[0] if len(shape) == 2 else 1
    if layout is None:
        return SourceTensor(name, shape, type_name, read_rows), n_rows * n_bytes

    @cache
    def scales_first() -> bool:
        return _has_scales_first(header, layout, read_rows(0, min(n_rows, _SAMPLED_ROWS)))

    def read_blocks(start: int, stop: int) -> Rows:
        rows = read_rows(start, stop)
        raw = row_as_blocks(layout, rows) if scales_first() else _cut(layout, rows)
        blocks = unpack(layout, raw, interleaved=header.version < 2)
        if not keep_types:
            return blocks.values().reshape(stop - start, n_cols).view(np.uint8)
        try:
            return blocks.as_gguf().reshape(stop - start, -1)
        except ValueError as error:
            raise corrupt(file.path, f"{name}: {error}") from None

    kept = type_name if keep_types else "F32"
    return SourceTensor(name, shape, kept, read_blocks), n_rows * n_bytes


def _cut(layout: BlockLayout, rows: Rows) -> Rows:
    return rows.reshape(-1, layout.block_bytes)


def _has_scales_first(header: _Header, layout: BlockLayout, rows: Rows) -> bool:
    """Say whether rows are laid out as in the first days of the magic "ggml"."""
    if header.magic != "ggml" or layout.type_name not in ("Q4_0", "Q4_1"):
        return False
    if is_plausible(layout, _cut(layout, rows)):
        return False
    return is_plausible(layout, row_as_blocks(layout, rows))


def _further_parts(
    path: Path,
    header: _Header,
    tensors: dict[str, SourceTensor],
    files: ExitStack,
    keep_types: bool,
) -> Iterator[dict[str, SourceTensor]]:
    """Open FILE.1 and so on, as many as the rows of one matrix in FILE ask for."""
    first = tensors.get("layers.0.attention.wq.weight")
    if first is None:
        raise corrupt(path, "tensor layers.0.attention.wq.weight is missing")
    n_parts, rest = divmod(header.dim, first.n_rows)
    if rest:
        raise corrupt(path, f"{first.name} has {first.n_rows} rows of {header.dim}")
    for number in range(1, n_parts):
        part = path.with_name(f"{path.name}.{number}")
        if not part.is_file():
            raise corrupt(path, f"is one part of {n_parts}: {part.name} is missing")
        other, _vocabulary, more = _open_part(part, files, keep_types)
        if other != header or more.keys() != tensors.keys():
            raise corrupt(part, f"is a part of another model than {path.name}")
        yield more


def _join(path: Path, parts: Sequence[dict[str, SourceTensor]]) -> Iterator[SourceTensor]:
    for name in parts[0]:
        try:
            target = gguf_name(name)
        except KeyError:
            raise unsupported(path, f"tensor {name} is none of a LLaMA model") from None
        if target is None:
            continue
        try:
            yield join_parts(target[0], [part[name] for part in parts], target[1])
        except ValueError as error:
            raise corrupt(path, f"{name}: {error}") from None


def _hyperparameters(
    path: Path, header: _Header, tensors: Sequence[SourceTensor]
) -> Hyperparameters:
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    needed = ("token_embd.weight", "blk.0.ffn_gate.weight", "blk.0.attn_k.weight")
    for name in needed:
        if len(shapes.get(name, ())) != 2:
            raise corrupt(path, f"matrix {name} is missing")
    vocab_size, hidden_dim, kv_dim = (shapes[name][0] for name in needed)
    head_dim, is_grouped = header.dim // header.n_heads, kv_dim < header.dim
    return Hyperparameters(
        architecture="llama",
        name=path.stem,
        n_layers=header.n_layers,
        dim=header.dim,
        hidden_dim=hidden_dim,
        n_heads=header.n_heads,
        n_kv_heads=max(kv_dim // head_dim, 1),
        head_dim=head_dim,
        vocab_size=vocab_size,
        n_ctx_train=_N_CTX_GROUPED if is_grouped else _N_CTX,
        norm_eps=header.norm_eps(is_grouped=is_grouped),
    )
