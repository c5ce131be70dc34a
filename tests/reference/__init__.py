"""The numpy oracle: LLaMA-family inference written from the papers, for the engine to agree with.

Reads a GGUF file through the PyPI package ``gguf`` (container and dequantization), so it shares no
line and no format knowledge with the engine. Clarity before speed: whole sequences, no cache.
"""

from reference.experts import Routes
from reference.model import Array, Hyperparameters, ReferenceModel, load
from reference.rounding import EXACT, Rounding, engine_rounding
from reference.transformer import forward, log_softmax

__all__ = [
    "EXACT",
    "Array",
    "Hyperparameters",
    "ReferenceModel",
    "Rounding",
    "Routes",
    "engine_rounding",
    "forward",
    "load",
    "log_softmax",
]
