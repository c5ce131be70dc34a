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
from llamad_tools.checkpoints.huggingface_experts import expert_name, stack_experts
from llamad_tools.checkpoints.huggingface_family import Config, Family
from llamad_tools.checkpoints.huggingface_gpt_oss import join_mxfp4
from llamad_tools.checkpoints.huggingface_sampling import read_sampling
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from llamad_tools.checkpoints.huggingface_weights import open_weights
from llamad_tools.checkpoints.huggingface_wrapper import text_name
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.sentence_transformers import read_pooling
from llamad_tools.checkpoints.source import (
    Checkpoint,
    Metadata,
    SourceTensor,
    corrupt,
    interleave_heads,
    plus_one,
    unsupported,
)

_IGNORED = re.compile(
    r".*\.rotary_emb\.inv_freq|gpt_neox\.layers\.[0-9]+\.attention\.(bias|masked_bias)"
    r"|pooler\.dense\.(weight|bias)|cls\.predictions\..*"  # BERT's
)
_LAYER = re.compile(r"(.+?)\.(0|[1-9][0-9]{0,4})\.(.+)")


def gguf_name(name: str, family: Family) -> str:
    """Return the GGUF name of a tensor; raises KeyError for one that the family does not have."""
    match = _LAYER.fullmatch(name)
    if match is None or match[1] != family.layer_prefix:
        stem, _, suffix = name.rpartition(".")
        return f"{family.outer[stem]}.{suffix}"
    whole = family.whole_names.get(match[3])
    if whole is None and family.experts is not None:
        whole = expert_name(match[3], (family.experts,))
    if whole is None:
        stem, _, suffix = match[3].rpartition(".")
        if suffix not in ("weight", "bias"):
            raise KeyError(name)
        whole = f"{family.inner_names()[stem]}.{suffix}"
    return f"blk.{match[2]}.{whole}"


def open_huggingface_folder(folder: Path) -> Checkpoint:
    """Read everything but the weights. Raises LlamadError that names the file and the fault."""
    config = HuggingFaceConfig(folder / "config.json")
    files = ExitStack()
    try:
        stored = _text_weights(folder, files)
        numbers = config.hyperparameters
        if config.values.get("tie_word_embeddings") is None:
            has_output = any(_is_output(name, config.family) for name in stored)
            numbers = replace(numbers, tied_output=not has_output)
        if config.family.unties and numbers.tied_output:
            stored = _with_output(stored, config.family)
            numbers = replace(numbers, tied_output=False)
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
            **_pooling(folder, numbers.architecture),
            **read_sampling(folder),
            **read_tokenizer(folder, config.values),
        }
        return Checkpoint(metadata, [*arranged, *config.extra_tensors()], files)
    except BaseException:
        files.close()
        raise


def _pooling(folder: Path, architecture: str) -> Metadata:
    pooling = read_pooling(folder)
    return {} if pooling is None else {f"{architecture}.pooling_type": pooling}


def _text_weights(folder: Path, files: ExitStack) -> dict[str, SourceTensor]:
    """Return the tensors by the name that they have in a text model alone."""
    stored = open_weights(folder, files, lambda name: text_name(name) is not None)
    result: dict[str, SourceTensor] = {}
    for name, tensor in stored.items():
        alone = text_name(name)
        if alone in result:
            raise corrupt(folder, f"tensor {name} is there twice, also as {result[alone].name}")
        if alone is not None:
            result[alone] = tensor
    return result


def _is_output(name: str, family: Family) -> bool:
    stem, _, suffix = name.rpartition(".")
    return suffix == "weight" and family.outer.get(stem) == "output"


def _with_output(stored: Mapping[str, SourceTensor], family: Family) -> dict[str, SourceTensor]:
    """Return the tensors with the embedding a second time, as the output."""
    theirs = {ours: f"{name}.weight" for name, ours in family.outer.items()}
    embedding = stored.get(theirs["token_embd"])
    return {**stored, **({} if embedding is None else {theirs["output"]: embedding})}


def _tensors(
    folder: Path,
    config: HuggingFaceConfig,
    numbers: Hyperparameters,
    stored: Mapping[str, SourceTensor],
) -> list[SourceTensor]:
    family = config.family
    result = []
    for name, tensor in stored.items():
        if _IGNORED.fullmatch(name) or (_is_output(name, family) and numbers.tied_output):
            continue
        try:
            renamed = tensor.renamed(gguf_name(name, family))
        except KeyError:
            raise unsupported(
                folder, f"tensor {tensor.name} is none of a {config.model_type} model"
            ) from None
        if family.norms_without_one and _is_less_one(renamed.name):
            renamed = plus_one(renamed)
        result += arranged(folder, family, config.values, numbers.head_dim, renamed)
    return join_mxfp4(folder, stack_experts(folder, result))


def arranged(
    path: Path, family: Family, config: Config, head_dim: int, tensor: SourceTensor
) -> list[SourceTensor]:
    """Return what a tensor of theirs, renamed, is in GGUF; path, config: for messages, and values.

    Raises LlamadError CHECKPOINT_CORRUPT for a shape that the family's numbers cannot have.
    """
    parts = family.arrange(path, config, tensor)
    if not family.interleaves:
        return list(parts)
    return [_interleaved(path, part, head_dim) for part in parts]


def _is_less_one(name: str) -> bool:
    return name.endswith("norm.weight") and not name.endswith("ssm_norm.weight")


def _interleaved(path: Path, tensor: SourceTensor, head_dim: int) -> SourceTensor:
    """Return queries and keys with the pairs that RoPE turns beside each other."""
    if not re.search(r"attn_[qk]\.", tensor.name):
        return tensor
    if tensor.shape[0] % head_dim:
        raise corrupt(path, f"{tensor.name} has {tensor.shape[0]} rows, heads {head_dim}")
    return interleave_heads(tensor, head_dim)
