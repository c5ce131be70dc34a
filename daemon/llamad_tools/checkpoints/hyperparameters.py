"""The numbers of a model: as GGUF metadata, and as the tensors that it must have.

Key names: GGUF specification, "Standardized key-value pairs"; which are written follows llama.cpp's
converters, so that llama.cpp and llamad both load the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamad_tools.checkpoints.source import Metadata, SourceTensor, corrupt
from llamad_tools.quantize.mixes import GGML_QUANTIZATION_VERSION, QUANTIZATION_VERSION

Shape = tuple[int, ...]
TOKEN_TYPES = "token_types.weight"  # of an embedding: (types, dim)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer whose numbers are not those of all. mixer: its tensors in place of attention."""

    hidden_dim: int
    n_kv_heads: int
    head_dim: int
    mixer: Mapping[str, Shape] | None = None
    more: Mapping[str, Shape] = field(default_factory=dict)  # further tensors
    absent: frozenset[str] = frozenset()  # of attention: attn_v and so on


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """One model's shape. architecture: the GGUF name; vocab_size: rows of the embedding."""

    architecture: str
    name: str
    n_layers: int
    dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_ctx_train: int
    norm_eps: float
    rope_theta: float = 10000.0
    n_rotated: int | None = None  # elements of a head that RoPE turns; None: all
    rope_scaling: Metadata = field(default_factory=dict)  # keys below "ARCHITECTURE.rope.scaling."
    tied_output: bool = False
    qkv_bias: bool = False
    output_bias: bool = False  # of attn_output
    ffn_bias: bool = False  # of gate, up and down
    logits_bias: bool = False
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")  # of a layer, each (dim,)
    output_norm: str = "output_norm"
    layer_norm: bool = False  # in place of RMSNorm
    norm_bias: bool = False  # of all norms but those of heads
    qk_norm: str | None = None  # "head", or "row": of all heads together
    gated: bool = True  # the feed-forward has a gate
    fused_qkv: bool = False  # attn_qkv: queries, keys, values
    fused_gate: bool = False  # ffn_up: gate, up
    gates_attention: bool = False  # attn_q has a gate behind each head's query
    layers: tuple[Layer, ...] = ()  # where they differ; else all are as the numbers say
    outer: Mapping[str, Shape] = field(default_factory=dict)  # further tensors of no layer
    more: Metadata = field(default_factory=dict)  # keys below "ARCHITECTURE."

    @property
    def rope_dims(self) -> int:
        """Elements of a head that RoPE turns."""
        return self.head_dim if self.n_rotated is None else self.n_rotated

    def check(self, path: Path) -> None:
        """Raise LlamadError CHECKPOINT_CORRUPT for heads that no attention can have."""
        if self.head_dim < 2 or self.head_dim % 2:
            raise corrupt(path, f"heads have {self.head_dim} dimensions, must have pairs")
        if self.rope_dims < 2 or self.rope_dims % 2:
            raise corrupt(path, f"{self.rope_dims} elements of a head rotate, must be pairs")
        if self.n_heads % self.n_kv_heads:
            raise corrupt(path, f"{self.n_heads} heads cannot share {self.n_kv_heads} of keys")

    def metadata(self) -> Metadata:
        """Return the metadata without the tokenizer's and the file type."""
        arch = self.architecture
        norm = "layer_norm_epsilon" if self.layer_norm else "layer_norm_rms_epsilon"
        result: Metadata = {
            "general.architecture": arch,
            "general.type": "model",
            "general.name": self.name,
            QUANTIZATION_VERSION: GGML_QUANTIZATION_VERSION,
            f"{arch}.block_count": self.n_layers,
            f"{arch}.context_length": self.n_ctx_train,
            f"{arch}.embedding_length": self.dim,
            f"{arch}.feed_forward_length": self.hidden_dim,
            f"{arch}.attention.head_count": self.n_heads,
            f"{arch}.attention.head_count_kv": self.n_kv_heads,
            f"{arch}.attention.{norm}": self.norm_eps,
            f"{arch}.attention.key_length": self.head_dim,
            f"{arch}.attention.value_length": self.head_dim,
            f"{arch}.rope.dimension_count": self.rope_dims,
            f"{arch}.rope.freq_base": self.rope_theta,
            f"{arch}.vocab_size": self.vocab_size,
        }
        if TOKEN_TYPES in self.outer:  # llama.cpp loads no BERT without
            result["tokenizer.ggml.token_type_count"] = self.outer[TOKEN_TYPES][0]
        for key, value in self.rope_scaling.items():
            result[f"{arch}.rope.scaling.{key}"] = value
        for key, value in self.more.items():
            result[f"{arch}.{key}"] = value
        return result

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yield name and shape of every tensor the model must have, in file order."""
        usual = Layer(self.hidden_dim, self.n_kv_heads, self.head_dim)
        yield "token_embd.weight", (self.vocab_size, self.dim)
        yield from self._norm(self.output_norm)
        if not self.tied_output:
            yield "output.weight", (self.vocab_size, self.dim)
        if self.logits_bias:
            yield "output.bias", (self.vocab_size,)
        yield from self.outer.items()
        for index, layer in enumerate(self.layers or [usual] * self.n_layers):
            for name, shape in self._layer(layer):
                yield f"blk.{index}.{name}", shape

    def _layer(self, layer: Layer) -> Iterator[tuple[str, Shape]]:
        for norm in self.norms:
            yield from self._norm(norm)
        for name, shape in self._attention(layer) if layer.mixer is None else layer.mixer.items():
            if name.partition(".")[0] not in layer.absent:
                yield name, shape
        yield from self._feed_forward(layer.hidden_dim)
        yield from layer.more.items()

    def _norm(self, name: str) -> Iterator[tuple[str, Shape]]:
        yield f"{name}.weight", (self.dim,)
        if self.norm_bias:
            yield f"{name}.bias", (self.dim,)

    def _attention(self, layer: Layer) -> Iterator[tuple[str, Shape]]:
        head_dim = layer.head_dim
        q_dim, kv_dim = self.n_heads * head_dim, layer.n_kv_heads * head_dim
        parts = [("q", 2 * q_dim if self.gates_attention else q_dim), ("k", kv_dim), ("v", kv_dim)]
        norms = [("q", q_dim), ("k", kv_dim)]
        for part, n_rows in [("qkv", q_dim + 2 * kv_dim)] if self.fused_qkv else parts:
            yield f"attn_{part}.weight", (n_rows, self.dim)
            if self.qkv_bias:
                yield f"attn_{part}.bias", (n_rows,)
        for part, n_rows in norms if self.qk_norm else ():
            yield f"attn_{part}_norm.weight", (n_rows if self.qk_norm == "row" else head_dim,)
        yield "attn_output.weight", (self.dim, q_dim)
        if self.output_bias:
            yield "attn_output.bias", (self.dim,)

    def _feed_forward(self, hidden_dim: int) -> Iterator[tuple[str, Shape]]:
        if hidden_dim == 0:  # a layer is its mixer alone
            return
        wide = {"ffn_gate": hidden_dim, "ffn_up": hidden_dim}
        if self.fused_gate:
            wide = {"ffn_up": 2 * hidden_dim}
        elif not self.gated:
            del wide["ffn_gate"]
        for name, n_rows in wide.items():
            yield f"{name}.weight", (n_rows, self.dim)
            if self.ffn_bias:
                yield f"{name}.bias", (n_rows,)
        yield "ffn_down.weight", (self.dim, hidden_dim)
        if self.ffn_bias:
            yield "ffn_down.bias", (self.dim,)

    def arrange(self, path: Path, tensors: Sequence[SourceTensor]) -> list[SourceTensor]:
        """Return the tensors in file order.

        Raises LlamadError CHECKPOINT_CORRUPT for one that is missing, too many or of another shape.
        """
        by_name = {tensor.name: tensor for tensor in tensors}
        result = []
        for name, shape in self.shapes():
            tensor = by_name.pop(name, None)
            if tensor is None:
                raise corrupt(path, f"tensor {name} is missing")
            if tensor.shape != shape:
                raise corrupt(path, f"{name} has shape {tensor.shape}, the model needs {shape}")
            result.append(tensor)
        if by_name:
            raise corrupt(path, f"tensor {min(by_name)} is none of this model's")
        return result
