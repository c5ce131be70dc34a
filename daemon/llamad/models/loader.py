"""Loading a model: map, plan memory, populate, lock, create the engine.

(signatures first; the body follows)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamad.config import ModelConfig
from llamad.engine.bindings import Engine, EngineInfo, EngineModel, ModelInfo, Sampler, StopFlag
from llamad.text import ChatTemplate, Tokenizer


@dataclass(slots=True)
class LoadedModel:
    """A model in memory with its engine: what ``jobs.runtime.ModelRuntime`` asks for, and more."""

    name: str
    path: Path
    model: EngineModel
    engine: Engine
    engine_info: EngineInfo  # as created: sizes, threads, kernel set; kv_blocks_free is not live
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    kv_type: str
    locked_bytes: int
    load_seconds: float

    @property
    def info(self) -> ModelInfo:
        """Hyperparameters and sizes, for GetStatus."""
        return self.model.info

    def new_sampler(
        self,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        typical_p: float,
        repeat_penalty: float,
        repeat_last_n: int,
        presence_penalty: float,
        frequency_penalty: float,
        seed: int,
        logit_bias: Mapping[int, float],
    ) -> Sampler:
        """Create a sampler for one sequence of this model."""
        raise NotImplementedError

    def close(self) -> None:
        """Destroy the engine, then unmap the model. The engine thread must have ended."""
        raise NotImplementedError


def load(
    config: ModelConfig, stop: StopFlag, progress: Callable[[str], None] | None = None
) -> LoadedModel:
    """Load the configured model; blocks, so it runs in a thread.

    ``stop`` ends it early with kind CANCELLED; ``progress`` gets one line per phase, on this
    thread. Raises LlamadError.
    """
    raise NotImplementedError
