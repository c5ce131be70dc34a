"""config.json of a Hugging Face folder: which model it is, in GGUF's numbers.

What a family may say and the engine would ignore is refused by name: a file that loads and answers
wrongly is worse than none.
"""

from pathlib import Path

from llamad_tools.checkpoints.huggingface_families import FAMILIES
from llamad_tools.checkpoints.huggingface_gemma4 import global_head_dim
from llamad_tools.checkpoints.huggingface_keys import check_layers
from llamad_tools.checkpoints.huggingface_rope import HuggingFaceRope
from llamad_tools.checkpoints.huggingface_wrapper import text_of
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.json_file import positive_count, positive_float, read_json
from llamad_tools.checkpoints.source import (
    SourceTensor,
    corrupt,
    unsupported,
    vector,
)

_MOST_LAYERS = 1024  # as the engine
_NORM_EPS = 1e-6  # what transformers takes where a file says nothing


class HuggingFaceConfig:
    """A checked config.json."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises LlamadError that names the key."""
        self.path = path
        self.values = text_of(path, read_json(path))
        self.model_type = self._model_type()
        self.family = FAMILIES[self.model_type]
        for key, value in self.family.defaults.items():
            if self.values.get(key) is None:
                self.values[key] = value
        self._check_activation()
        self._rope = HuggingFaceRope(
            path, self.values, self._count("max_position_embeddings"), self.family
        )
        self.hyperparameters = self._hyperparameters()
        self.hyperparameters.check(path)

    def extra_tensors(self) -> list[SourceTensor]:
        """Return the tensors that follow from the numbers: factors of RoPE."""
        factors = self._rope.long_factors(self.hyperparameters.rope_dims)
        usual = self._rope.factors(self.hyperparameters.head_dim)
        if usual is not None:
            factors["rope_freqs.weight"] = usual
        return [vector(name, values) for name, values in factors.items()]

    def _model_type(self) -> str:
        model_type = self.values.get("model_type") or self._type_of_class()
        if model_type not in FAMILIES:
            raise unsupported(
                self.path,
                f"model_type {model_type!r} is not supported, only {', '.join(FAMILIES)}",
            )
        quantized = self.values.get("quantization_config")
        if quantized is not None:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            if method == FAMILIES[str(model_type)].stored_as:
                return str(model_type)
            raise unsupported(
                self.path,
                f"its weights are quantized already (quantization_config: {method!r}): convert "
                "the model that it was made from",
            )
        return str(model_type)

    def _check_activation(self) -> None:
        for key in ("hidden_act", "hidden_activation"):
            activation = self.values.get(key)
            if activation is not None and activation not in self.family.activations:
                raise unsupported(self.path, f"{key} {activation!r} is not supported")

    def _type_of_class(self) -> str | None:
        """Return the model_type of the class that "architectures" names: LlamaForCausalLM."""
        match self.values.get("architectures"):
            case [str(name), *_]:
                return name.lower().removesuffix("forcausallm")
        return None

    def _hyperparameters(self) -> Hyperparameters:
        dim, n_heads = self._count("hidden_size"), self._count("num_attention_heads")
        family = self.family
        n_layers = self._count("num_hidden_layers")
        if n_layers > _MOST_LAYERS:
            raise corrupt(
                self.path, f"num_hidden_layers is {n_layers}, must be at most {_MOST_LAYERS}"
            )
        slides = not family.window_optional or self.values.get("sliding_window") is not None
        if family.window_period and slides:
            check_layers(self.path, self.values, family.window_period)
        head_dim = self._count("head_dim", family.head_dim or dim // n_heads)
        layers = family.layers(self.path, self.values)
        if family.architecture == "gemma4":
            head_dim = global_head_dim(self.path, self.values)
        return Hyperparameters(
            architecture=family.architecture,
            name=self._name(),
            n_layers=n_layers,
            dim=dim,
            hidden_dim=layers[0].hidden_dim if layers else self._count("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=self._count("num_key_value_heads", n_heads),
            head_dim=head_dim,
            n_rotated=self._rope.rotated(head_dim, partial=family.partial_rope),
            vocab_size=self._count("vocab_size"),
            n_ctx_train=self._context(),
            norm_eps=self._norm_eps(),
            rope_theta=self._rope.theta,
            rope_scaling=self._rope.metadata(),
            tied_output=family.makes_vectors or bool(self.values.get("tie_word_embeddings")),
            qkv_bias=self._flag(family.qkv_bias),
            output_bias=self._flag(family.output_bias),
            ffn_bias=self._flag(family.ffn_bias),
            logits_bias=family.logits_bias,
            norms=tuple(family.norms.values()),
            output_norm=family.output_norm,
            layer_norm=family.layer_norm,
            norm_bias=family.norm_bias,
            qk_norm=("row" if family.row_norm else "head") if family.qk_norms else None,
            gated=family.gated,
            fused_qkv=family.fused_qkv,
            fused_gate=family.fused_gate,
            gates_attention=family.gates_attention,
            layers=layers,
            outer=family.outer_shapes(self.values),
            more=family.keys(self.path, self.values),
        )

    def _flag(self, value: bool | str) -> bool:
        """Return a fact of a family, or what the key that it names says."""
        return bool(self.values.get(value)) if isinstance(value, str) else value

    def _norm_eps(self) -> float:
        for key in self.family.eps_keys:
            if self.values.get(key) is not None:
                return self._number(key, _NORM_EPS)
        return 1e-5 if self.family.layer_norm else _NORM_EPS

    def _name(self) -> str:
        given = str(self.values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
        return given or self.path.parent.resolve().name

    def _context(self) -> int:
        """Return the trained context, cut to the sliding window: within it nothing slides."""
        context = self._count("max_position_embeddings")
        family = self.family
        if family.window_period or family.own_windows or family.fused_qkv:
            return context
        layers = self.values.get("layer_types") or []
        if not isinstance(layers, list):
            raise corrupt(self.path, f"layer_types is {layers!r}, must be a list")
        slides = (
            family.always_slides
            or self.values.get("use_sliding_window")
            or any(kind != "full_attention" for kind in layers)
        )
        if slides and self.values.get("sliding_window") is not None:
            return min(context, self._count("sliding_window"))
        if any(kind != "full_attention" for kind in layers):
            raise corrupt(self.path, "layer_types has layers that slide, but no sliding_window")
        return context

    def _count(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        return positive_count(self.path, key, default if value is None else value)

    def _number(self, key: str, default: float) -> float:
        return positive_float(self.path, key, self.values.get(key, default))
