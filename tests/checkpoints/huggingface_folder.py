"""Write Hugging Face folders of tiny models: safetensors, config.json, tokenizers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pth_file import encode, sentencepiece_model
from tiny_gguf import TinySpec, vocabulary

Weights = Mapping[str, NDArray[np.float32]]

LAYER_NAMES = {
    "attn_q.": "self_attn.q_proj.",
    "attn_k.": "self_attn.k_proj.",
    "attn_v.": "self_attn.v_proj.",
    "attn_output.": "self_attn.o_proj.",
    "attn_q_norm.": "self_attn.q_norm.",
    "attn_k_norm.": "self_attn.k_norm.",
    "ffn_gate.": "mlp.gate_proj.",
    "ffn_up.": "mlp.up_proj.",
    "ffn_down.": "mlp.down_proj.",
    "attn_norm.": "input_layernorm.",
    "ffn_norm.": "post_attention_layernorm.",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


_LATE_NORMS = {
    "post_attention_norm.": "post_attention_layernorm.",
    "post_ffw_norm.": "post_feedforward_layernorm.",
}
# what a family calls otherwise
FAMILY_NAMES: Mapping[str, Mapping[str, str]] = {
    "gemma2": _LATE_NORMS | {"ffn_norm.": "pre_feedforward_layernorm."},
    "gemma3": _LATE_NORMS | {"ffn_norm.": "pre_feedforward_layernorm."},
    "olmo2": _LATE_NORMS,
    "seed_oss": {"post_attention_norm.": "post_attention_layernorm."},
    "phi3": {"attn_qkv.": "self_attn.qkv_proj.", "ffn_up.": "mlp.gate_up_proj."},
}
INTERLEAVED = {"smollm3", "granite", "arcee"}  # GGUF rotates neighbours, Hugging Face halves


def their_name(name: str, architecture: str = "llama") -> str:
    """Return Hugging Face's name of a GGUF tensor."""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, rest = name.split(".", 2)
    inner, kind = rest.rsplit(".", 1)
    names = {**LAYER_NAMES, **FAMILY_NAMES.get(architecture, {})}
    return f"model.layers.{layer}.{names[inner + '.']}{kind}"


def their_weights(weights: Weights, architecture: str, head_dim: int) -> Weights:
    """Return the weights of a GGUF file as a folder of Hugging Face has them."""
    result = {}
    for name, values in weights.items():
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values - np.float32(1)
        if architecture in INTERLEAVED and ("attn_q." in name or "attn_k." in name):
            heads = values.reshape(-1, head_dim // 2, 2, *values.shape[1:])
            values = heads.swapaxes(1, 2).reshape(values.shape)
        result[their_name(name, architecture)] = values
    return result


def safetensors(weights: Weights, type_name: str = "F32") -> bytes:
    """Return one file with all weights as one type."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data: list[bytes] = []
    end = 0
    for name, values in weights.items():
        data.append(encode(values, type_name))
        span = [end, end + len(data[-1])]
        header[name] = {"dtype": type_name, "shape": list(values.shape), "data_offsets": span}
        end = span[1]
    return pack(header, b"".join(data))


def pack(header: object, data: bytes) -> bytes:
    """Return a file of a header, spaces to a multiple of eight, and data."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def write_sharded(folder: Path, weights: Weights, n_shards: int, type_name: str) -> None:
    """Write shards, every n-th weight into one, and their index."""
    where: dict[str, str] = {}
    for index in range(n_shards):
        part = dict(list(weights.items())[index::n_shards])
        name = f"model-{index + 1:05}-of-{n_shards:05}.safetensors"
        (folder / name).write_bytes(safetensors(part, type_name))
        where |= dict.fromkeys(part, name)
    index_path = folder / "model.safetensors.index.json"
    index_path.write_text(json.dumps({"metadata": {}, "weight_map": where}))


def config_of(spec: TinySpec, model_type: str) -> dict[str, Any]:
    """Return config.json of a model of that shape."""
    return {
        "model_type": model_type,
        "architectures": ["WhateverForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": spec.dim,
        "intermediate_size": spec.hidden_dim,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.resolved_head_dim,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_freq_base,
        "max_position_embeddings": spec.n_ctx_train,
        "vocab_size": spec.vocab_size,
        "tie_word_embeddings": spec.tied_output,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write_folder(
    folder: Path,
    weights: Weights,
    config: Mapping[str, object],
    *,
    n_shards: int = 0,
    type_name: str = "F32",
) -> Path:
    """Write weights (n_shards 0: one file without index), config and a SentencePiece tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    if n_shards:
        write_sharded(folder, weights, n_shards, type_name)
    else:
        (folder / "model.safetensors").write_bytes(safetensors(weights, type_name))
    write_json(folder / "config.json", config)
    pieces = list(zip(*vocabulary(300), strict=True))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
    return folder


def write_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value))


# ---- byte-level BPE ---------------------------------------------------------------------------

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace("{1,3}", "")
QWEN35_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(use_regex: bool = False) -> dict[str, object]:
    """Return a step that spells bytes."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def split(pattern: str) -> dict[str, object]:
    """Return a definition that cuts by a pattern and spells bytes."""
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [step, byte_level()]}


PRE_TOKENIZERS: dict[str, dict[str, object]] = {
    "gpt-2": byte_level(use_regex=True),
    "llama-bpe": split(LLAMA3_PATTERN),
    "qwen2": split(QWEN2_PATTERN),
    "qwen35": split(QWEN35_PATTERN),
    "tekken": split(TEKKEN_PATTERN),
    "gpt-4o": split(GPT4O_PATTERN),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)],
    },
}
MERGES = ("Ġ t", "h e", "Ġt he", "i n", "a n", "1 2", "Ġ a", "e r", "l l", "' ll")
SPECIAL = ("<|begin|>", "<|end|>", "<|eom_id|>")


def byte_alphabet() -> list[str]:
    """Return the 256 characters that spell bytes, as GPT-2's encoder.py makes them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        spelled.setdefault(byte, chr(256 + len(spelled) - len(printable)))
    return [spelled[byte] for byte in range(256)]


def tokenizer_json(
    pre_tokenizer: object, *, merges_as_pairs: bool = False, special: Sequence[str] = SPECIAL
) -> dict[str, Any]:
    """Return a small byte-level BPE tokenizer: bytes, merges, then special tokens."""
    tokens = [*byte_alphabet(), *("".join(merge.split(" ")) for merge in MERGES)]
    added = [
        {"id": len(tokens) + i, "content": text, "special": True} for i, text in enumerate(special)
    ]
    return {
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "model": {
            "type": "BPE",
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": [merge.split(" ") if merges_as_pairs else merge for merge in MERGES],
        },
    }
