"""A tiny LLaMA checkpoint of Meta's, on disk, as the tests of its conversion want it."""

from pathlib import Path
from typing import Any

from pth_file import llama_weights, sentencepiece_model, write_llama_folder
from tiny_gguf import vocabulary

VOCAB, DIM, HIDDEN, LAYERS = 300, 64, 96, 2
PARAMS: dict[str, Any] = {
    "dim": DIM,
    "multiple_of": 32,
    "n_heads": 4,
    "n_layers": LAYERS,
    "norm_eps": 1e-6,
    "vocab_size": -1,
}
WEIGHTS = llama_weights(VOCAB, DIM, HIDDEN, LAYERS, kv_dim=DIM)
TOKENIZER = sentencepiece_model(list(zip(*vocabulary(VOCAB), strict=True)))


def write(
    tmp_path: Path,
    *,
    n_shards: int = 1,
    type_name: str = "F16",
    params: dict[str, Any] | None = None,
    name: str = "llama",
) -> Path:
    return write_llama_folder(
        tmp_path / name,
        WEIGHTS,
        PARAMS | (params or {}),
        TOKENIZER,
        n_shards=n_shards,
        type_name=type_name,
    )
