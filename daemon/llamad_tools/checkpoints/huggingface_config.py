"""config.json of a Hugging Face folder: which model it is, in GGUF's numbers.

What a family may say and the engine would ignore is refused by name: a file that loads and answers
wrongly is worse than none.
"""

from pathlib import Path

from llamad_tools.checkpoints.huggingface_families import FAMILIES, check_layers
from llamad_tools.checkpoints.huggingface_rope import HuggingFaceRope
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.json_file import positive_count, positive_float, read_json
from llamad_tools.checkpoints.source import (
    SourceTensor,
    corrupt,
    unsupported,
    vector,
)

_NORM_EPS = 1e-6  # what transformers takes where a file says nothing


class HuggingFaceConfig:
    """A checked config.json."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises LlamadError that names the key."""
        self.path = path
        self.values = read_json(path)
        self.model_type = self._model_type()
        self.family = FAMILIES[self.model_type]
        self._check_activation()
        self._rope = HuggingFaceRope(
            path, self.values, self._count("max_position_embeddings"), self.family.theta
        )
        self.hyperparameters = self._hyperparameters()
        self.hyperparameters.check(path)

    def extra_tensors(self) -> list[SourceTensor]:
        """Return the tensors that follow from the numbers: factors of RoPE."""
        factors = self._rope.long_factors(self.hyperparameters.rope_dims)
        llama3 = self._rope.factors(self.hyperparameters.head_dim)
        if llama3 is not None:
            factors["rope_freqs.weight"] = llama3
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
        biased = bool(self.values.get("attention_bias"))
        if family.window_period:
            check_layers(self.path, self.values, family.window_period)
        head_dim = self._count("head_dim", family.head_dim or dim // n_heads)
        return Hyperparameters(
            architecture=family.architecture,
            name=self._name(),
            n_layers=self._count("num_hidden_layers"),
            dim=dim,
            hidden_dim=self._count("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=self._count("num_key_value_heads", n_heads),
            head_dim=head_dim,
            n_rotated=self._rope.rotated(head_dim, partial=family.partial_rope),
            vocab_size=self._count("vocab_size"),
            n_ctx_train=self._context(),
            norm_eps=self._number("rms_norm_eps", _NORM_EPS),
            rope_theta=self._rope.theta,
            rope_scaling=self._rope.metadata(),
            tied_output=bool(self.values.get("tie_word_embeddings")),
            qkv_bias=biased if family.qkv_bias is None else family.qkv_bias,
            output_bias=bool(family.output_bias and self.values.get(family.output_bias)),
            ffn_bias=bool(self.values.get("mlp_bias")),
            norms=tuple(family.norms.values()),
            qk_norm=("row" if family.row_norm else "head") if family.qk_norms else None,
            gated=family.gated,
            fused=family.fused,
            more=family.check(self.path, self.values),
        )

    def _name(self) -> str:
        given = str(self.values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
        return given or self.path.parent.resolve().name

    def _context(self) -> int:
        """Return the trained context, cut to the sliding window: within it nothing slides."""
        context = self._count("max_position_embeddings")
        if self.family.window_period or self.family.fused:
            return context
        layers = self.values.get("layer_types") or []
        if not isinstance(layers, list):
            raise corrupt(self.path, f"layer_types is {layers!r}, must be a list")
        slides = (
            self.model_type == "mistral"
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
