"""Write GGUF bytes with full control, for files that no honest writer produces.

Every count, length and offset can be a lie; nothing is checked. For good models see tiny_gguf.py.
"""

import struct
from collections.abc import Mapping, Sequence

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL = range(8)
STRING, ARRAY, UINT64, INT64, FLOAT64 = range(8, 13)
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
IQ2_XXS, IQ2_XS, IQ3_XXS, IQ3_S, IQ2_S, MXFP4 = 16, 17, 18, 21, 22, 39

_FORMATS = {
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    UINT32: "I",
    INT32: "i",
    FLOAT32: "f",
    BOOL: "B",
    UINT64: "Q",
    INT64: "q",
    FLOAT64: "d",
}


def string(text: str | bytes, length: int | None = None) -> bytes:
    """Return a GGUF string; ``length`` is what its length field says."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def scalar(kind: int, value: float | str | bytes) -> bytes:
    """Return a value's type and bytes."""
    if isinstance(value, str | bytes):
        return struct.pack("<I", kind) + string(value)
    return struct.pack("<I" + _FORMATS[kind], kind, value)


def array(element_type: int, count: int, body: bytes = b"") -> bytes:
    """Return an array's type, header and the bytes that follow it."""
    return struct.pack("<IIQ", ARRAY, element_type, count) + body


def strings(texts: Sequence[str | bytes]) -> bytes:
    """Return an honest array of strings."""
    return array(STRING, len(texts), b"".join(string(text) for text in texts))


def tensor(
    name: str | bytes,
    dims: Sequence[int],
    type_id: int = F32,
    offset: int = 0,
    n_dims: int | None = None,
) -> bytes:
    """Return an entry of the tensor table; dims: the row length first."""
    head = string(name) + struct.pack("<I", len(dims) if n_dims is None else n_dims)
    return head + struct.pack(f"<{len(dims)}QIQ", *dims, type_id, offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_kv: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Return a file of raw metadata entries (key and value), raw table entries and tensor data."""
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(entries) if n_kv is None else n_kv,
    )
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data if tensors else head


# ---- a model that is right but for what a test replaces ---------------------------------------

DIM, HIDDEN, N_HEADS, N_KV_HEADS, HEAD_DIM, VOCAB = 16, 32, 4, 2, 4, 16

MODEL_METADATA: Mapping[str, bytes] = {
    "general.architecture": scalar(STRING, "llama"),
    "llama.block_count": scalar(UINT32, 1),
    "llama.context_length": scalar(UINT32, 128),
    "llama.embedding_length": scalar(UINT32, DIM),
    "llama.feed_forward_length": scalar(UINT32, HIDDEN),
    "llama.attention.head_count": scalar(UINT32, N_HEADS),
    "llama.attention.head_count_kv": scalar(UINT32, N_KV_HEADS),
    "llama.attention.layer_norm_rms_epsilon": scalar(FLOAT32, 1e-5),
    "llama.rope.freq_base": scalar(FLOAT32, 10000.0),
    "tokenizer.ggml.model": scalar(STRING, "llama"),
    "tokenizer.ggml.tokens": strings([f"t{i}" for i in range(VOCAB)]),
}

MODEL_TENSORS: Mapping[str, tuple[int, ...]] = {
    "token_embd.weight": (DIM, VOCAB),
    "output_norm.weight": (DIM,),
    "output.weight": (DIM, VOCAB),
    "blk.0.attn_norm.weight": (DIM,),
    "blk.0.attn_q.weight": (DIM, N_HEADS * HEAD_DIM),
    "blk.0.attn_k.weight": (DIM, N_KV_HEADS * HEAD_DIM),
    "blk.0.attn_v.weight": (DIM, N_KV_HEADS * HEAD_DIM),
    "blk.0.attn_output.weight": (N_HEADS * HEAD_DIM, DIM),
    "blk.0.ffn_norm.weight": (DIM,),
    "blk.0.ffn_gate.weight": (DIM, HIDDEN),
    "blk.0.ffn_up.weight": (DIM, HIDDEN),
    "blk.0.ffn_down.weight": (HIDDEN, DIM),
}

TensorChange = tuple[tuple[int, ...], int] | None  # dims and type; None removes the tensor


def model(
    metadata: Mapping[str, bytes | None] | None = None,
    tensors: Mapping[str, TensorChange] | None = None,
    *,
    weight: float = 0.125,
) -> bytes:
    """Return a tiny llama model, every weight equal, with keys and tensors replaced or removed.

    A replaced tensor keeps room for its values and holds zeros when it is not float32.
    """
    entries = dict(MODEL_METADATA) | dict(metadata or {})
    shapes: dict[str, TensorChange] = {name: (dims, F32) for name, dims in MODEL_TENSORS.items()}
    shapes |= dict(tensors or {})
    table: list[bytes] = []
    data = b""
    for name, change in shapes.items():
        if change is None:
            continue
        dims, type_id = change
        n = 1
        for dim in dims:
            n *= dim
        table.append(tensor(name, dims, type_id, len(data)))
        body = struct.pack(f"<{n}f", *[weight] * n) if type_id == F32 else bytes(4 * n)
        data += body + bytes(-len(body) % 32)
    kept = [string(key) + value for key, value in entries.items() if value is not None]
    return gguf(kept, table, data)
