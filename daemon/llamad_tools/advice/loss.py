"""What quantizing costs in perplexity, by the size of a model: figures that others published.

Every figure is cited, none is ours: perplexities on wikitext-2 as llama.cpp measures them, made
without an importance matrix. Models of one size differ by a factor of three, so a loss is a range
over the tables of its class, and what is recommended is judged by the larger end. Below 0.5
billion weights nobody published one, and small models lose more: ``llamad fit --measure`` tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOSSLESS = ("F32", "F16", "BF16")

_LLAMA_CPP = "https://github.com/ggml-org/llama.cpp"


@dataclass(frozen=True, slots=True)
class LossTable:
    """Perplexities of one model as mixes; ``weights``: how many it has."""

    model: str
    weights: float
    source: str
    unquantized: float
    perplexities: Mapping[str, float]

    def loss(self, mix: str) -> float | None:
        """Return the share by which perplexity grows, at least 0; None: not published."""
        if mix not in self.perplexities:
            return None
        return max(0.0, self.perplexities[mix] / self.unquantized - 1)


_QWEN2 = "https://huggingface.co/Qwen/Qwen2-0.5B-Instruct-GGUF, Evaluation"

TABLES: Sequence[LossTable] = (
    LossTable("Qwen2 0.5B", 0.49e9, _QWEN2, 15.11, {
        "Q8_0": 15.13, "Q6_K": 15.14, "Q5_K_M": 15.24, "Q5_0": 15.40, "Q4_K_M": 15.36,
        "Q4_0": 16.28, "Q3_K_M": 15.70, "Q2_K": 16.74,
    }),
    LossTable("Qwen2 1.5B", 1.54e9, _QWEN2, 10.43, {
        "Q8_0": 10.43, "Q6_K": 10.45, "Q5_K_M": 10.50, "Q5_0": 10.56, "Q4_K_M": 10.61,
        "Q4_0": 10.79, "Q3_K_M": 11.08, "Q2_K": 13.04,
    }),
    # F16 and deltas as llama.cpp's quantize printed them in 2023. Its Q2_K was another then.
    LossTable("LLaMA 7B", 6.74e9, f"{_LLAMA_CPP}/pull/1684 and later figures", 5.9066, {
        "Q8_0": 5.9070, "Q6_K": 5.9074, "Q5_K_M": 5.9188, "Q5_1": 5.9415, "Q5_K_S": 5.9466,
        "Q4_K_M": 5.9598, "Q5_0": 5.9749, "Q4_K_S": 6.0058, "Q4_1": 6.0651, "Q3_K_L": 6.0830,
        "Q4_0": 6.1232, "Q3_K_M": 6.1562, "Q3_K_S": 6.4617,
    }),
    LossTable("Qwen2 7B", 7.62e9, _QWEN2, 7.93, {
        "Q8_0": 7.94, "Q6_K": 7.96, "Q5_K_M": 7.97, "Q5_0": 7.98, "Q4_K_M": 8.02, "Q4_0": 8.19,
        "Q3_K_M": 8.20, "Q2_K": 10.58,
    }),
    LossTable("LLaMA 3 8B", 8.03e9, f"{_LLAMA_CPP}/pull/6936", 6.233160, {
        "Q8_0": 6.234284, "Q6_K": 6.253382, "Q5_K_M": 6.288607, "Q5_K_S": 6.336598,
        "Q5_1": 6.337857, "Q5_0": 6.363224, "Q4_K_M": 6.407115, "Q4_K_S": 6.500529,
        "Q4_1": 6.682737, "Q4_0": 6.700147, "Q3_K_L": 6.787876, "Q3_K_M": 6.888498,
        "Q3_K_S": 7.863786, "Q2_K": 9.751568,
    }),
    LossTable("LLaMA 13B", 13.0e9, f"{_LLAMA_CPP}/pull/1684", 5.2543, {
        "Q6_K": 5.2568, "Q5_K_M": 5.2638, "Q5_K_S": 5.2785, "Q4_K_M": 5.3002, "Q4_K_S": 5.3404,
        "Q3_K_L": 5.4063, "Q3_K_M": 5.4498, "Q3_K_S": 5.6033,
    }),
    LossTable("Llama 2 70B", 69.0e9, f"{_LLAMA_CPP}, examples/perplexity/README.md", 3.4313, {
        "Q6_K": 3.4367, "Q5_K_M": 3.4451, "Q5_K_S": 3.4483, "Q5_0": 3.4744, "Q4_K_M": 3.4725,
        "Q4_K_S": 3.4852, "Q4_1": 3.5125, "Q4_0": 3.5550, "Q3_K_L": 3.5617, "Q3_K_M": 3.5932,
        "Q3_K_S": 3.7019, "Q2_K": 3.7339,
    }),
)  # fmt: skip

CLASS_ENDS = (1e9, 4e9, 10e9)  # weights; the last class is open


@dataclass(frozen=True, slots=True)
class Loss:
    """The shares by which perplexity grows, from the least to the most of the class's models."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.high == 0:
            return "nothing"
        low, high = f"{100 * self.low:.1f}", f"{100 * self.high:.1f}"
        return f"{low} %" if low == high else f"{low} to {high} %"


def tables_for(n_weights: float) -> list[LossTable]:
    """Return the tables of the models in the same class of size."""
    return [table for table in TABLES if _class_of(table.weights) == _class_of(n_weights)]


def expected_loss(n_weights: float, mix: str) -> Loss | None:
    """Return what a model of so many weights loses as a mix; None: nobody published it."""
    if mix in LOSSLESS:
        return Loss(0.0, 0.0)
    losses = [loss for t in tables_for(n_weights) if (loss := t.loss(mix)) is not None]
    return Loss(min(losses), max(losses)) if losses else None


def _class_of(n_weights: float) -> int:
    return sum(n_weights >= end for end in CLASS_ENDS)
