"""The adapters (LoRA) in memory beside a loaded model: which there are, and what a request chose.

All adapters of the model directory that the engine takes for the model are loaded with it, as far
as the model stays in memory beside them, in the order of their names. The others are told of with
the reason. What is added later comes with the next load, for which ``llamactl use`` of the same
model is enough. ``open_adapters`` blocks, as
``loading.load``, which calls it.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from llamad.config import ModelConfig
from llamad.engine.bindings import Adapter, AdapterUse, Engine, EngineModel
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.value import MetadataValue
from llamad.jobs.request import AdapterChoice
from llamad.logs import fields
from llamad.memory.demand import AdapterSizes, plan_of
from llamad.memory.plan import MemoryPlan
from llamad.sizes import compact_size
from llamad.store.registry import ModelFile, ModelRegistry

logger = logging.getLogger(__name__)

DIGEST_DIGITS = 32


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter in memory."""

    name: str
    digest: str  # of its whole file, 32 hexadecimal digits
    adapter: Adapter


@dataclass(slots=True)
class Adapters:
    """Those of one model; what ``schedule.runtime.Adapters`` asks for."""

    model_name: str
    times: dict[str, int] = field(default_factory=dict)  # of all files that were there, by name
    loaded: dict[str, LoadedAdapter] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)  # of those that are not, by name

    @property
    def sizes(self) -> AdapterSizes:
        """What they take."""
        infos = [one.adapter.info for one in self.loaded.values()]
        return AdapterSizes(
            sum(info.bytes for info in infos), max((info.max_rank for info in infos), default=0)
        )

    def digest(self, name: str) -> str:
        """Return the digest of an adapter's file. Raises ADAPTER_NOT_FOUND."""
        return self._find(name).digest

    def use(self, choice: AdapterChoice) -> AdapterUse:
        """Return what a request chose. Raises ADAPTER_NOT_FOUND, ADAPTER_CHANGED."""
        found = self._find(choice.name)
        if found.digest != choice.digest:
            raise LlamadError(
                ErrorKind.STATE,
                "ADAPTER_CHANGED",
                f"adapter {choice.name!r} has another file than when the job was submitted",
            )
        return AdapterUse(found.adapter, choice.scale)

    def told(self) -> dict[str, str]:
        """Return the faults of all by name; empty of those in memory."""
        return {**dict.fromkeys(self.loaded, ""), **self.faults}

    def reserve(self, engine: Engine) -> None:
        """Take room for them in the steps of the model's engine."""
        engine.reserve_adapters(self.sizes.max_rank)

    def close(self) -> None:
        """Free them; no step runs."""
        for one in self.loaded.values():
            one.adapter.close()

    def _find(self, name: str) -> LoadedAdapter:
        if name in self.loaded:
            return self.loaded[name]
        if name in self.faults:
            raise LlamadError(
                ErrorKind.STATE,
                "ADAPTER_NOT_LOADED",
                f"adapter {name!r} is not loaded with {self.model_name!r}: {self.faults[name]}",
            )
        known = ", ".join(self.loaded) or "none"
        raise LlamadError(
            ErrorKind.NOT_FOUND,
            "ADAPTER_NOT_FOUND",
            f"no adapter {name!r} is loaded with {self.model_name!r}; there are: {known}",
        )


def open_adapters(
    registry: ModelRegistry,
    file: ModelFile,
    model: EngineModel,
    config: ModelConfig,
    metadata: Mapping[str, MetadataValue],
) -> Adapters:
    """Return the adapters of a model, in memory."""

    def plan(sizes: AdapterSizes) -> MemoryPlan:
        return plan_of(model, metadata, replace(config, draft=""), adapters=sizes)

    adapters = Adapters(file.name, registry.adapter_times())
    for found in registry.adapters():
        try:
            adapters.loaded[found.name] = _open(model, found)
        except LlamadError as error:
            adapters.faults[found.name] = error.message
    try:
        _leave_out_what_has_no_room(adapters, plan)
    except BaseException:
        adapters.close()
        raise
    for name, fault in adapters.faults.items():
        logger.info(fields("adapter left out", adapter=name, model=file.name, fault=fault))
    if adapters.loaded:
        size = compact_size(adapters.sizes.n_bytes)
        logger.info(
            fields("adapters loaded", model=file.name, adapters=len(adapters.loaded), size=size)
        )
    return adapters


def _open(model: EngineModel, file: ModelFile) -> LoadedAdapter:
    try:
        with file.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:DIGEST_DIGITS]
    except OSError as error:
        raise LlamadError(
            ErrorKind.STATE, "MODEL_UNREADABLE", f"{file.path}: {error.strerror}"
        ) from error
    return LoadedAdapter(file.name, digest, Adapter(model, file.path))


def _leave_out_what_has_no_room(
    adapters: Adapters, plan: Callable[[AdapterSizes], MemoryPlan]
) -> None:
    """Close the last ones until the model fits beside the others as well as alone."""
    if not adapters.loaded:
        return
    fits_alone = plan(AdapterSizes()).model_fits
    while adapters.loaded and not _has_room(plan, adapters.sizes, fits_alone=fits_alone):
        name, one = adapters.loaded.popitem()
        one.adapter.close()
        adapters.faults[name] = (
            f"no room for its {compact_size(one.adapter.info.bytes)} beside the model"
        )


def _has_room(
    plan: Callable[[AdapterSizes], MemoryPlan], sizes: AdapterSizes, *, fits_alone: bool
) -> bool:
    try:
        return plan(sizes).model_fits or not fits_alone
    except LlamadError as error:
        if error.reason != "OUT_OF_MEMORY":
            raise
        return False
