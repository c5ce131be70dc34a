"""llama.cpp as a peer: its C library, out of the PyPI package ``xllamacpp``, through ctypes.

Optional: the tests that use it skip where the package is not installed. Only functions of
``llama.h`` that take and return numbers and pointers, and its default parameters as opaque values,
so that a newer llama.cpp still fits. One sequence, greedy choices made by the caller: no sampler,
no chat template, no penalties lie between the weights and the logits.
"""

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_CTX = 512  # llama.cpp's default, which the opaque parameters keep

Logits = NDArray[np.float32]
Blocks = NDArray[np.uint8]


class _Parameters(ctypes.Structure):
    """A parameter struct whose fields nobody here reads: larger than any of llama.h."""

    _fields_ = (("bytes", ctypes.c_uint8 * 1024),)


class _Batch(ctypes.Structure):
    """``llama_batch`` of llama.h."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_silence = _Log(lambda *_: None)
_FUNCTIONS = {
    "llama_model_default_params": (_Parameters, []),
    "llama_context_default_params": (_Parameters, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, _Parameters]),
    "llama_model_free": (None, [ctypes.c_void_p]),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, _Parameters]),
    "llama_free": (None, [ctypes.c_void_p]),
    "llama_set_n_threads": (None, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
    "llama_get_memory": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_memory_clear": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_tokenize": (
        ctypes.c_int32,
        [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32),
            *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
        ],
    ),
    "llama_batch_init": (_Batch, [ctypes.c_int32] * 3),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, _Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
    "llama_set_embeddings": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_get_embeddings_ith": (
        ctypes.POINTER(ctypes.c_float),
        [ctypes.c_void_p, ctypes.c_int32],
    ),
    "llama_adapter_lora_init": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "llama_set_adapters_lora": (
        ctypes.c_int32,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p],
    ),
    "llama_log_set": (None, [_Log, ctypes.c_void_p]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ],
    ),
}


def is_available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def open_library() -> Any:
    """Return llama.cpp's library. Raises RuntimeError when it is not installed."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.submodule_search_locations is None:
        raise RuntimeError("xllamacpp is not installed: pip install xllamacpp")
    (path,) = Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_silence, None)
    return library


def quantize(type_id: int, weights: Logits, importance: Logits | None = None) -> Blocks:
    """Return rows in llama.cpp's blocks of a GGML type: (n_rows, n_cols) -> (n_rows, row_bytes)."""
    library = open_library()
    weights = np.ascontiguousarray(weights, np.float32)
    n_rows, n_cols = weights.shape
    out = np.zeros(4 * weights.size, np.uint8)
    pointer = None if importance is None else importance.ctypes.data
    data = weights.ctypes.data, out.ctypes.data
    n_bytes = library.ggml_quantize_chunk(type_id, *data, 0, n_rows, n_cols, pointer)
    return out[:n_bytes].reshape(n_rows, -1)


class LlamaCpp:
    """A model open in llama.cpp on the CPU, with one sequence of at most N_CTX tokens."""

    def __init__(self, path: Path, *, n_threads: int = 2) -> None:
        """Load a GGUF file. Raises RuntimeError when llama.cpp refuses it."""
        self._library = open_library()
        parameters = self._library.llama_model_default_params()
        self._model = self._library.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        parameters = self._library.llama_context_default_params()
        self._context = self._library.llama_init_from_model(self._model, parameters)
        self._library.llama_set_n_threads(self._context, n_threads, n_threads)
        self.vocab: int = self._library.llama_model_get_vocab(self._model)
        self.vocab_size: int = self._library.llama_vocab_n_tokens(self.vocab)
        self._batch = self._library.llama_batch_init(N_CTX, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text, with BOS where the model's metadata asks for it."""
        data = text.encode()
        ids = np.empty(len(data) + 8, np.int32)
        arguments = (self.vocab, data, len(data), ids.ctypes.data, len(ids), True, False)
        return [int(i) for i in ids[: self._library.llama_tokenize(*arguments)]]

    def logits(self, tokens: Sequence[int], *, step: int = N_CTX) -> Logits:
        """Return the logits after every token, (n_tokens, vocab_size); step: tokens a batch."""
        self.clear()
        parts = [tokens[i : i + step] for i in range(0, len(tokens), step)]
        return np.concatenate(
            [self.extend(part, step * i) for i, part in enumerate(parts)], dtype=np.float32
        )

    def use_adapter(self, path: Path, scale: float) -> None:
        """Run what follows through an adapter, which is freed with the model.

        Raises RuntimeError when llama.cpp refuses its file.
        """
        adapter = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise RuntimeError(f"llama.cpp does not load {path}")
        adapters, scales = (ctypes.c_void_p * 1)(adapter), (ctypes.c_float * 1)(scale)
        if self._library.llama_set_adapters_lora(self._context, adapters, 1, scales) != 0:
            raise RuntimeError(f"llama.cpp does not use {path}")

    def clear(self) -> None:
        """Forget the sequence."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def extend(self, tokens: Sequence[int], first_position: int) -> Logits:
        """Run more tokens of the sequence in one batch; return their logits."""
        self._decode(tokens, first_position)
        rows = (self._library.llama_get_logits_ith(self._context, i) for i in range(len(tokens)))
        return np.stack([np.ctypeslib.as_array(row, (self.vocab_size,)).copy() for row in rows])

    def rows(self, tokens: Sequence[int], dim: int) -> Logits:
        """Return what an encoder whose file pools nothing makes of each token: (n_tokens, dim)."""
        self._library.llama_set_embeddings(self._context, True)
        self._decode(tokens, 0)
        get = self._library.llama_get_embeddings_ith
        rows = (get(self._context, i) for i in range(len(tokens)))
        return np.stack([np.ctypeslib.as_array(row, (dim,)).copy() for row in rows])

    def _decode(self, tokens: Sequence[int], first_position: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, first_position + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode: status {status}")

    def close(self) -> None:
        """Free the context and the model."""
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
