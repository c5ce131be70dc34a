"""config.json of a Hugging Face folder: which model it is, in GGUF's numbers.

What a family may say and the engine would ignore is refused by name: a file that loads and answers
wrongly is worse than none.
"""

from pathlib import Path

from llamad_tools.checkpoints.huggingface_rope import HuggingFaceRope
from llamad_tools.checkpoints.hyperparameters import Hyperparameters
from llamad_tools.checkpoints.json_file import positive_count, positive_float, read_json
from llamad_tools.checkpoints.source import (
    SourceTensor,
    corrupt,
    unsupported,
    vector,
)

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

# What transformers takes where a file says nothing (configuration_*.py of the four families).
_NORM_EPS, _QWEN3_HEAD_DIM = 1e-6, 128


class HuggingFaceConfig:
    """A checked config.json."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises LlamadError that names the key."""
        self.path = path
        self.values = read_json(path)
        self.model_type = self._model_type()
        self._rope = HuggingFaceRope(path, self.values, self._count("max_position_embeddings"))
        self.hyperparameters = self._hyperparameters()
        self.hyperparameters.check(path)

    def extra_tensors(self) -> list[SourceTensor]:
        """Return the tensors that follow from the numbers: rope_freqs.weight of Llama 3.1."""
        factors = self._rope.factors(self.hyperparameters.head_dim)
        return [] if factors is None else [vector("rope_freqs.weight", factors)]

    def _model_type(self) -> str:
        model_type = self.values.get("model_type") or self._type_of_class()
        if model_type not in ARCHITECTURES:
            raise unsupported(
                self.path,
                f"model_type {model_type!r} is not supported, only {', '.join(ARCHITECTURES)}",
            )
        quantized = self.values.get("quantization_config")
        if quantized is not None:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            raise unsupported(
                self.path,
                f"its weights are quantized already (quantization_config: {method!r}): convert "
                "the model that it was made from",
            )
        activation = self.values.get("hidden_act")
        if activation is not None and activation not in ("silu", "swish"):  # names of one function
            raise unsupported(self.path, f"hidden_act {activation!r} is not supported")
        return str(model_type)

    def _type_of_class(self) -> str | None:
        """Return the model_type of the class that "architectures" names: LlamaForCausalLM."""
        match self.values.get("architectures"):
            case [str(name), *_]:
                return name.lower().removesuffix("forcausallm")
        return None

    def _hyperparameters(self) -> Hyperparameters:
        dim, n_heads = self._count("hidden_size"), self._count("num_attention_heads")
        biased = bool(self.values.get("attention_bias"))
        return Hyperparameters(
            architecture=ARCHITECTURES[self.model_type],
            name=self._name(),
            n_layers=self._count("num_hidden_layers"),
            dim=dim,
            hidden_dim=self._count("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=self._count("num_key_value_heads", n_heads),
            head_dim=self._count(
                "head_dim", _QWEN3_HEAD_DIM if self.model_type == "qwen3" else dim // n_heads
            ),
            vocab_size=self._count("vocab_size"),
            n_ctx_train=self._context(),
            norm_eps=self._number("rms_norm_eps", _NORM_EPS),
            rope_theta=self._rope.theta,
            rope_scaling=self._rope.metadata(),
            tied_output=bool(self.values.get("tie_word_embeddings")),
            qkv_bias=biased or self.model_type == "qwen2",
            output_bias=biased and self.model_type != "qwen2",
            ffn_bias=self.model_type == "llama" and bool(self.values.get("mlp_bias")),
            qk_norm=self.model_type == "qwen3",
        )

    def _name(self) -> str:
        given = str(self.values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
        return given or self.path.parent.resolve().name

    def _context(self) -> int:
        """Return the trained context, cut to the sliding window: within it nothing slides."""
        context = self._count("max_position_embeddings")
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
