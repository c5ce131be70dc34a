"""What the service is doing, as clients see it: loading, ready, without a model, failed, stopping.

Owns the current phase and what is reachable in it. ``daemon.py`` and ``model_manager.py`` move
it, the services read it; all on the event loop's thread. It loads nothing and stops nothing.
"""

import dataclasses
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llamad.errors import ErrorKind, LlamadError, shutting_down
from llamad.memory.plan import MemoryPlan
from llamad.schedule.loop import Scheduler
from llamad.schedule.runtime import Tokenizer
from llamad.service.disk_meter import Measured
from llamad.service.prefixes import Prefixes

LOADING_RETRY_SECONDS = 2.0


class Phase(enum.Enum):
    """Where the service is in its life."""

    LOADING = "loading"
    READY = "ready"
    NO_MODEL = "no_model"
    FAILED = "failed"
    STOPPING = "stopping"


class TextCodec(Tokenizer, Protocol):
    """The tokenizer as Tokenize and Detokenize use it; any thread."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The loaded model as GetStatus and ListModels show it. Bytes, tokens and seconds."""

    name: str
    path: str
    architecture: str
    file_bytes: int
    locked_bytes: int
    n_ctx: int
    n_ctx_train: int
    vocab_size: int
    load_seconds: float
    kv_type: str
    kv_bytes: int
    threads: int
    kernel_set: str
    plan: MemoryPlan
    own_sampling: Mapping[str, float] = field(default_factory=dict)  # what its file asks for
    digest: str = ""  # tells its file from others (gguf/digest.py)
    draft: str = ""  # the name of what guesses for it, or was asked to
    draft_path: str = ""  # empty: nothing guesses
    draft_fault: str = ""  # why nothing guesses though it was asked for
    recommended_sampling: Mapping[str, float] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)  # why each is not loaded, or ""
    adapter_times: Mapping[str, int] = field(default_factory=dict)  # ModelRegistry.adapter_times

    @property
    def loaded_adapters(self) -> Sequence[str]:
        """The names of those that requests may go through."""
        return [name for name, fault in self.adapters.items() if not fault]


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers requests while a model is loaded."""

    scheduler: Scheduler
    codec: TextCodec
    model: ModelFacts  # as it was loaded, but for the plan, which may change
    measured: Callable[[], Measured]
    prefixes: Prefixes


class ServiceState:
    """The phase of the service. ``serving`` is set from a READY until its model closes."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.detail = "starting"
        self.serving: Serving | None = None
        self._error: LlamadError | None = None
        self._started = time.monotonic()

    @property
    def uptime_seconds(self) -> float:
        """Seconds since the service started."""
        return time.monotonic() - self._started

    def loading(self, detail: str) -> None:
        """Tell what is being loaded."""
        self._enter(Phase.LOADING, detail)

    def ready(self, serving: Serving) -> None:
        """Serve a model."""
        self.serving = serving
        self._enter(Phase.READY, f"serving {serving.model.name}")

    def no_model(self, detail: str) -> None:
        """Live without a model; detail says how to give one."""
        self._enter(Phase.NO_MODEL, detail)

    def failed(self, error: LlamadError) -> None:
        """Live with a model that could not be loaded, or that was lost."""
        self._error = error
        self._enter(Phase.FAILED, error.message)

    def planned_again(self, plan: MemoryPlan) -> None:
        """Take note that the memory of the model that serves was divided anew."""
        if self.serving is not None:
            model = dataclasses.replace(self.serving.model, plan=plan)
            self.serving = dataclasses.replace(self.serving, model=model)

    def release(self) -> None:
        """Forget what served: its model is about to be closed."""
        self.serving = None

    def stopping(self) -> None:
        """Accept nothing new; no other phase follows."""
        self._enter(Phase.STOPPING, "stopping")

    def _enter(self, phase: Phase, detail: str) -> None:
        if self.phase is not Phase.STOPPING:
            self.phase, self.detail = phase, detail

    def require(self) -> Serving:
        """Return what serves, or raise the error that tells why nothing does."""
        if self.phase is Phase.READY and self.serving is not None:
            return self.serving
        raise self.refusal()

    def refusal(self) -> LlamadError:
        """Return the error that tells why nothing serves in this phase."""
        match self.phase:
            case Phase.STOPPING:
                return shutting_down()
            case Phase.NO_MODEL:
                return LlamadError(ErrorKind.STATE, "NO_MODEL", self.detail)
            case Phase.FAILED if self._error is not None:
                corrupt = self._error.kind is ErrorKind.CORRUPT
                return LlamadError(
                    ErrorKind.CORRUPT if corrupt else ErrorKind.STATE,
                    self._error.reason,
                    f"the model is not available: {self._error.message}",
                )
            case _:
                return LlamadError(
                    ErrorKind.UNAVAILABLE,
                    "MODEL_LOADING",
                    f"the model is still loading: {self.detail}",
                    retry_after_seconds=LOADING_RETRY_SECONDS,
                )
