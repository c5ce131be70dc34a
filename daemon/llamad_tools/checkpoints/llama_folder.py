"""A LLaMA checkpoint as Meta distributed it: consolidated.NN.pth, params.json, tokenizer.model.

Shard NN holds the NN-th part of every matrix of a model-parallel run (fairscale: column-parallel
layers are cut by rows of the matrix, row-parallel ones and the embedding by columns) and a whole
copy of each norm. Rows of wq and wk already lie as GGUF's llama rotates them, in adjacent pairs.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import PREFIX
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.json_file import positive_count, positive_float, read_json
from llamad_tools.checkpoints.llama3_rope import Llama3Scaling
from llamad_tools.checkpoints.pth_file import PthFile
from llamad_tools.checkpoints.sentencepiece_file import is_sentencepiece, read_vocabulary
from llamad_tools.checkpoints.source import (
    Checkpoint,
    Metadata,
    SourceTensor,
    corrupt,
    join_columns,
    join_rows,
    unsupported,
    vector,
)
from llamad_tools.checkpoints.tiktoken_file import read_tiktoken

_SHARD = re.compile(r"consolidated\.(\d\d)\.pth")
_IGNORED = re.compile(r"rope\.freqs|layers\.[0-9]+\.attention\.inner_attention\.rope\.freqs")
_LLAMA_3_2_DIMS = (2048, 3072)  # of the 1B and the 3B
_LAYER = re.compile(r"layers\.(0|[1-9][0-9]{0,4})\.(.+)")

# name: (GGUF name, dimension along which shards are joined; None: every shard has a copy)
_OUTER: Mapping[str, tuple[str, int | None]] = {
    "tok_embeddings.weight": ("token_embd.weight", 1),
    "norm.weight": ("output_norm.weight", None),
    "output.weight": ("output.weight", 0),
}
_INNER: Mapping[str, tuple[str, int | None]] = {
    "attention.wq.weight": ("attn_q.weight", 0),
    "attention.wk.weight": ("attn_k.weight", 0),
    "attention.wv.weight": ("attn_v.weight", 0),
    "attention.wo.weight": ("attn_output.weight", 1),
    "feed_forward.w1.weight": ("ffn_gate.weight", 0),
    "feed_forward.w2.weight": ("ffn_down.weight", 1),
    "feed_forward.w3.weight": ("ffn_up.weight", 0),
    "attention_norm.weight": ("attn_norm.weight", None),
    "ffn_norm.weight": ("ffn_norm.weight", None),
}


def gguf_name(name: str) -> tuple[str, int | None] | None:
    """Return the GGUF name of a tensor of Meta's and how its shards join; None: not a weight.

    Raises KeyError for a name that LLaMA models do not have.
    """
    if _IGNORED.fullmatch(name):
        return None
    match = _LAYER.fullmatch(name)
    if match is None:
        return _OUTER[name]
    inner, dimension = _INNER[match[2]]
    return f"blk.{match[1]}.{inner}", dimension


def join_parts(name: str, parts: Sequence[SourceTensor], dimension: int | None) -> SourceTensor:
    """Return one tensor of the parts of all shards; raises ValueError for parts that do not fit."""
    first = parts[0].renamed(name)
    if any((part.shape, part.type_name) != (first.shape, first.type_name) for part in parts[1:]):
        raise ValueError("shards differ in its shape or type")
    if dimension is None:
        rows = first.read_rows(0, 1)
        if any(bytes(part.read_rows(0, 1)) != bytes(rows) for part in parts[1:]):
            raise ValueError("shards differ in its weights")
        return first
    if len(parts) == 1:
        return first
    if len(first.shape) != 2:
        raise ValueError(f"has shape {first.shape}, must be a matrix")
    return (join_rows if dimension == 0 else join_columns)([first, *parts[1:]])


def open_llama_folder(folder: Path) -> Checkpoint:
    """Read everything but the weights. Raises LlamadError that names the file and the fault."""
    params_path = folder / "params.json"
    params = read_json(params_path)
    files = ExitStack()
    try:
        shards = []
        for path in _shard_paths(folder):
            shards.append(PthFile(path))
            files.callback(shards[-1].close)
        dim = positive_count(params_path, "dim", params.get("dim"))
        _check_shard_count(folder, shards, dim)
        tensors = _join(shards, dim)
        vocabulary = _vocabulary(folder, params)
        numbers = _hyperparameters(params_path, params, {t.name: t for t in tensors})
        numbers.check(params_path)
        _check_vocabulary(folder, numbers, params, vocabulary)
        arranged = [*numbers.arrange(folder, tensors), *_rope_tensors(params, numbers)]
        return Checkpoint({**numbers.metadata(), **vocabulary}, arranged, files)
    except BaseException:
        files.close()
        raise


def _shard_paths(folder: Path) -> list[Path]:
    numbers = sorted(int(m[1]) for p in folder.iterdir() if (m := _SHARD.fullmatch(p.name)))
    for number in range(numbers[-1] + 1 if numbers else 1):
        if number not in numbers:
            raise corrupt(folder, f"shard consolidated.{number:02}.pth is missing")
    return [folder / f"consolidated.{number:02}.pth" for number in numbers]


def _check_shard_count(folder: Path, shards: Sequence[PthFile], dim: int) -> None:
    """Compare how many shards there are with what the rows of one say."""
    name = "layers.0.attention.wq.weight"
    if name not in shards[0]:
        raise corrupt(shards[0].path, f"tensor {name} is missing")
    needed, rest = divmod(dim, shards[0].tensor(name).n_rows)
    if rest or needed < len(shards):
        raise corrupt(folder, f"{len(shards)} shards make more rows of {name} than dim {dim}")
    if needed > len(shards):
        raise corrupt(
            folder,
            f"has {len(shards)} of {needed} shards: consolidated.{len(shards):02}.pth is missing",
        )


def _join(shards: Sequence[PthFile], dim: int) -> list[SourceTensor]:
    """Return the tensors of all shards under their GGUF names."""
    first = shards[0]
    for shard in shards[1:]:
        if differing := set(first.names()) ^ set(shard.names()):
            raise corrupt(
                shard.path,
                f"is a shard of another model than {first.path.name}: only one of them has "
                f"{min(differing)}",
            )
    result = []
    for name in first.names():
        try:
            target = gguf_name(name)
        except KeyError:
            raise unsupported(first.path, f"tensor {name} is none of a LLaMA model") from None
        if target is None:
            continue
        parts = [shard.tensor(name) for shard in shards]
        dimension = target[1]
        if name == "tok_embeddings.weight" and parts[0].n_cols == dim:
            dimension = 0  # Llama 3 cuts the embedding by tokens
        try:
            result.append(join_parts(target[0], parts, dimension))
        except ValueError as error:
            raise corrupt(
                first.path.parent,
                f"{name}: {error}: a shard of another model is among the {len(shards)}",
            ) from None
    return result


def _hyperparameters(
    path: Path, params: Mapping[str, Any], tensors: Mapping[str, SourceTensor]
) -> Hyperparameters:
    """Return the numbers of params.json, those that it leaves open from the tensors' shapes."""
    dim = positive_count(path, "dim", params.get("dim"))
    n_heads = positive_count(path, "n_heads", params.get("n_heads"))
    if dim % n_heads:
        raise corrupt(path, f"dim {dim} is no multiple of n_heads {n_heads}")
    norm_eps = positive_float(path, "norm_eps", params.get("norm_eps"))
    theta = positive_float(path, "rope_theta", params.get("rope_theta", 10000.0))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    missing = {"token_embd.weight", "blk.0.ffn_gate.weight"} - shapes.keys()
    if missing:
        raise corrupt(path.parent, f"tensor {min(missing)} is missing")
    return Hyperparameters(
        architecture="llama",
        name=path.parent.resolve().name,
        n_layers=positive_count(path, "n_layers", params.get("n_layers")),
        dim=dim,
        hidden_dim=shapes["blk.0.ffn_gate.weight"][0],
        n_heads=n_heads,
        n_kv_heads=positive_count(path, "n_kv_heads", params.get("n_kv_heads", n_heads)),
        head_dim=dim // n_heads,
        vocab_size=shapes["token_embd.weight"][0],
        n_ctx_train=_context(params, dim, norm_eps, theta),
        norm_eps=norm_eps,
        rope_theta=theta,
    )


def _context(params: Mapping[str, Any], dim: int, norm_eps: float, theta: float) -> int:
    """Return the context the model was trained on, which params.json does not say.

    Code Llama raised the base of RoPE (arXiv:2308.12950, section 2.2), so did Llama 3, which 3.1
    scales for a longer context (arXiv:2407.21783, section 3.4.2); Llama 2 has epsilon 1e-5, which
    of LLaMA 1 only 65B has too, the one of that width without grouped heads.
    """
    if params.get("use_scaled_rope"):
        return 131072
    if theta == 5e5:
        return 8192
    if theta == 1e6:
        return 16384
    is_llama_1_65b = dim == 8192 and "n_kv_heads" not in params
    return 4096 if norm_eps == 1e-5 and not is_llama_1_65b else 2048


def tokenizer_places(folder: Path) -> tuple[Path, Path]:
    """Return where a tokenizer may be: in the folder or, as the 2023 download had it, above."""
    return folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model"


def _rope_tensors(params: Mapping[str, Any], numbers: Hyperparameters) -> list[SourceTensor]:
    """Return the scaling of Llama 3.1 and later, whose factor is no part of params.json.

    It is 8, of Llama 3.2's 1B and 3B 32 (config.json of their Hugging Face folders).
    """
    if not params.get("use_scaled_rope"):
        return []
    scaling = Llama3Scaling(32.0 if numbers.dim in _LLAMA_3_2_DIMS else 8.0)
    return [vector("rope_freqs.weight", scaling.factors(numbers.rope_theta, numbers.head_dim))]


def _vocabulary(folder: Path, params: Mapping[str, Any]) -> Metadata:
    """Return the tokenizer's metadata: sentencepiece's or, of Llama 3, tiktoken's."""
    for path in tokenizer_places(folder):
        if path.is_file():
            if is_sentencepiece(path):
                return read_vocabulary(path).metadata()
            return read_tiktoken(path, is_llama_3_1=bool(params.get("use_scaled_rope")))
    raise corrupt(folder, "tokenizer.model is missing")


def _check_vocabulary(
    folder: Path,
    numbers: Hyperparameters,
    params: Mapping[str, Any],
    vocabulary: Metadata,
) -> None:
    n_pieces = len(vocabulary[PREFIX + "tokens"])
    declared = params.get("vocab_size", -1)  # -1: as many as the tokenizer has
    if numbers.vocab_size != n_pieces or declared not in (-1, n_pieces):
        raise corrupt(
            folder,
            f"tokenizer.model has {n_pieces} tokens, the embedding {numbers.vocab_size}, "
            f"params.json says {declared}: a shard is missing or the tokenizer is another model's",
        )
