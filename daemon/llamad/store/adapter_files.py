"""Files that are adapters (LoRA): how one is told from a model, and whether it can be one of ours.

Keys are those of gguf-py (constants.py, Keys.General and Keys.Adapter). Whether an adapter fits a
model the engine says, when it opens both. Blocking.
"""

from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import GgufFile, read_value
from llamad.errors import ErrorKind, LlamadError

HALVES = (".lora_a", ".lora_b")


@dataclass(frozen=True, slots=True)
class AdapterHead:
    """What an adapter's file says of itself."""

    architecture: str
    base: str  # the name of the model it was made for; empty: it does not say


def is_adapter(path: Path) -> bool:
    """Whether a file says that it is an adapter; one that cannot be read says nothing."""
    try:
        return read_value(path, "general.type") == "adapter"
    except LlamadError:
        return False


def adapter_head(path: Path) -> AdapterHead | None:
    """Return what an adapter says of itself; None for what is none."""
    if not is_adapter(path):
        return None
    keys = "general.architecture", "general.base_model.0.name"
    architecture, base = (read_value(path, key) for key in keys)
    return AdapterHead(
        architecture if isinstance(architecture, str) else "", base if isinstance(base, str) else ""
    )


def check_adapter(path: Path) -> None:
    """Raise MODEL_UNSUPPORTED for an adapter that the engine cannot use with any model."""
    with GgufFile(path) as file:
        kind = file.metadata().get("adapter.type")
        names = [tensor.name for tensor in file.tensors()]
    if kind != "lora":
        raise _unsupported(f"{path}: key 'adapter.type' is {kind!r}, must be 'lora'")
    strange = next((name for name in names if not name.endswith(HALVES)), None)
    if strange is not None or not names:
        found = f"tensor {strange!r}" if names else "no tensor"
        raise _unsupported(f"{path}: has {found}: an adapter's end in {' or '.join(HALVES)}")


def _unsupported(message: str) -> LlamadError:
    return LlamadError(ErrorKind.STATE, "MODEL_UNSUPPORTED", message)
