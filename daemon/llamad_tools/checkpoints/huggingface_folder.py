"""A Hugging Face folder: weights, config.json and a tokenizer.

Owns how its tensors become GGUF's. Of some families, llama among them, the rows of queries and keys
are permuted: Hugging Face rotates halves of a head where GGUF's llama rotates adjacent pairs. What
sets a family apart is in ``huggingface_families.py``.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from llamad_tools.checkpoints.huggingface_config import HuggingFaceConfig
from llamad_tools.checkpoints.huggingface_sampling import read_sampling
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from llamad_tools.checkpoints.huggingface_weights import open_weights
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.source import (
    Checkpoint,
    SourceTensor,
    corrupt,
    interleave_heads,
    plus_one,
    unsupported,
)

_IGNORED = re.compile(r"model\.(layers\.[0-9]+\.self_attn\.)?rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,4})\.(.+)\.(weight|bias)")

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str, inner: Mapping[str, str]) -> str:
    """Return the GGUF name of a tensor; raises KeyError for one that the family does not have.

    inner: names of a layer's tensors, theirs to GGUF's.
    """
    match = _LAYER.fullmatch(name)
    if match is None:
        return _OUTER[name]
    return f"blk.{match[1]}.{inner[match[2]]}.{match[3]}"


def open_huggingface_folder(folder: Path) -> Checkpoint:
    """Read everything but the weights. Raises LlamadError that names the file and the fault."""
    config = HuggingFaceConfig(folder / "config.json")
    files = ExitStack()
    try:
        stored = open_weights(folder, files)
        numbers = config.hyperparameters
        if config.values.get("tie_word_embeddings") is None:
            numbers = replace(numbers, tied_output="lm_head.weight" not in stored)
        tensors = _tensors(folder, config, numbers, stored)
        embedding = next((t for t in tensors if t.name == "token_embd.weight"), None)
        if embedding is not None and embedding.n_rows != numbers.vocab_size:
            raise corrupt(
                folder,
                f"embedding has {embedding.n_rows} tokens, config.json says {numbers.vocab_size}",
            )
        arranged = numbers.arrange(folder, tensors)
        metadata = {
            **numbers.metadata(),
            **read_sampling(folder),
            **read_tokenizer(folder, config.values),
        }
        return Checkpoint(metadata, [*arranged, *config.extra_tensors()], files)
    except BaseException:
        files.close()
        raise


def _tensors(
    folder: Path,
    config: HuggingFaceConfig,
    numbers: Hyperparameters,
    stored: Mapping[str, SourceTensor],
) -> list[SourceTensor]:
    family, inner = config.family, config.family.inner_names()
    result = []
    for name, tensor in stored.items():
        if _IGNORED.fullmatch(name) or (name == "lm_head.weight" and numbers.tied_output):
            continue
        try:
            renamed = tensor.renamed(gguf_name(name, inner))
        except KeyError:
            raise unsupported(
                folder, f"tensor {name} is none of a {config.model_type} model"
            ) from None
        if family.norms_without_one and renamed.name.endswith("norm.weight"):
            renamed = plus_one(renamed)
        if family.interleaves and re.search(r"attn_[qk]\.", renamed.name):
            if renamed.shape[0] % numbers.head_dim:
                raise corrupt(
                    folder, f"{name} has {renamed.shape[0]} rows, heads {numbers.head_dim}"
                )
            renamed = interleave_heads(renamed, numbers.head_dim)
        result.append(renamed)
    return result
