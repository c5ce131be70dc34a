"""Gemma 4 E2B as a file without its weights: the tensor table of real sizes over a hole.

Shapes of the published configuration (google/gemma-4-E2B-it): 35 layers, four of five with a window
of 512 and heads of 256, the others with heads of 512; one KV head; the last 20 layers read the keys
of layers 13 and 14 and are twice as wide; 262,144 tokens, 256 inputs of each layer. RoPE factors
are left out, because the engine would look at them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tiny_gguf import FORMATS, Metadata, Tensor, encode_gguf

N_LAYERS, N_SHARED, DIM, N_HEADS, INPUTS, VOCABULARY = 35, 20, 1536, 8, 256, 262_144


def _is_local(layer: int) -> bool:
    return layer % 5 != 4


def _hidden(layer: int) -> int:
    return 6144 if layer < N_LAYERS - N_SHARED else 2 * 6144


def _metadata() -> dict[str, Metadata]:
    own: dict[str, Metadata] = {
        "block_count": N_LAYERS,
        "context_length": 131_072,
        "embedding_length": DIM,
        "embedding_length_per_layer_input": INPUTS,
        "feed_forward_length": [_hidden(layer) for layer in range(N_LAYERS)],
        "attention.head_count": N_HEADS,
        "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": 512,
        "attention.shared_kv_layers": N_SHARED,
        "attention.sliding_window_pattern": [_is_local(layer) for layer in range(N_LAYERS)],
        "rope.freq_base": 1e6,
        "rope.freq_base_swa": 1e4,
        "final_logit_softcapping": 30.0,
    }
    for name, local in (("attention.key_length", 256), ("attention.value_length", 256)):
        own |= {name: 512, f"{name}_swa": local}
    own |= {"rope.dimension_count": 512, "rope.dimension_count_swa": 256}
    return {"general.architecture": "gemma4"} | {f"gemma4.{k}": v for k, v in own.items()}


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd", (VOCABULARY, DIM)
    yield "per_layer_token_embd", (VOCABULARY, N_LAYERS * INPUTS)
    yield "per_layer_model_proj", (N_LAYERS * INPUTS, DIM)
    yield "per_layer_proj_norm", (INPUTS,)
    yield "output_norm", (DIM,)
    for layer in range(N_LAYERS):
        head = 256 if _is_local(layer) else 512
        block: dict[str, tuple[int, ...]] = {
            "attn_q": (N_HEADS * head, DIM),
            "attn_output": (DIM, N_HEADS * head),
            "attn_q_norm": (head,),
            "ffn_gate": (_hidden(layer), DIM),
            "ffn_up": (_hidden(layer), DIM),
            "ffn_down": (DIM, _hidden(layer)),
            "inp_gate": (INPUTS, DIM),
            "proj": (DIM, INPUTS),
            "layer_output_scale": (1,),
        }
        if layer < N_LAYERS - N_SHARED:
            block |= {"attn_k": (head, DIM), "attn_v": (head, DIM), "attn_k_norm": (head,)}
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            block[norm] = (DIM,)
        yield from ((f"blk.{layer}.{name}", shape) for name, shape in block.items())


def write_e2b(path: Path, type_name: str, embedding: str) -> Path:
    """Write the file: matrices of ``type_name``, the two tables by token of ``embedding``."""
    heads, offset = [], 0
    for name, shape in _shapes():
        matrix = embedding if "token_embd" in name else type_name
        kind = "F32" if len(shape) == 1 else matrix
        form, count = FORMATS[kind], 1
        for n in shape:
            count *= n
        n_bytes = count // form.block * form.block_bytes
        heads.append((Tensor(f"{name}.weight", kind, shape, b""), offset))
        offset += n_bytes + -n_bytes % 32
    head = encode_gguf(_metadata(), [tensor for tensor, _ in heads], [at for _, at in heads])
    path.write_bytes(head)
    os.truncate(path, len(head) + offset)
    return path
