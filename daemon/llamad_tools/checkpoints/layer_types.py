"""layer_types of a config.json: what kind of layer each one is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamad_tools.checkpoints.source import MAX_QUOTED, corrupt, unsupported


def layer_types(
    path: Path,
    config: Mapping[str, Any],
    n_layers: int,
    kinds: Sequence[str],
    usual: Sequence[str],
) -> list[str]:
    """Return the kind of each layer; usual: where the file names none.

    Raises LlamadError: CHECKPOINT_CORRUPT for no list of n_layers, CHECKPOINT_UNSUPPORTED for a
    kind that is none of ``kinds``.
    """
    found = config.get("layer_types")
    if found is None:
        return list(usual)
    if not isinstance(found, list):
        raise corrupt(path, f"layer_types is {str(found)[:MAX_QUOTED]!r}, must be a list")
    if len(found) != n_layers:
        raise corrupt(path, f"layer_types has {len(found)} layers, num_hidden_layers is {n_layers}")
    for kind in found:
        if kind not in kinds:
            raise unsupported(
                path,
                f"layer_types: {str(kind)[:MAX_QUOTED]!r} is not supported, only "
                f"{', '.join(kinds)}",
            )
    return found
