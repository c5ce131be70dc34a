"""The engine from Python: bindings, the one thread that enters C, and ``Model`` for scripts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamad.engine.model import Model

__all__ = ["Model"]


def __getattr__(name: str) -> object:
    """Import ``Model`` when it is asked for: it needs numpy, which the service does not load."""
    if name == "Model":
        from llamad.engine.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
