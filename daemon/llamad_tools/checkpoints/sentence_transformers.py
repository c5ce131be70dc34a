"""What the files of sentence-transformers in a folder say: how rows become a vector.

``modules.json`` lists the parts of a model in their order. Sources: sentence-transformers'
``Pooling.py`` for the names of modes, GGUF's ``pooling_type`` for the numbers.
"""

from pathlib import Path

from llamad_tools.checkpoints.json_file import read_json, read_json_list
from llamad_tools.checkpoints.source import corrupt, unsupported

_MODES = {  # theirs: GGUF's pooling_type
    "pooling_mode_mean_tokens": 1,
    "pooling_mode_cls_token": 2,
    "pooling_mode_lasttoken": 3,
}
_PARTS = frozenset({"Transformer", "Pooling", "Normalize"})  # which the engine computes


def read_pooling(folder: Path) -> int | None:
    """Return GGUF's pooling_type of a folder; None where it says nothing.

    Raises LlamadError for parts of a model that no file can hold, such as a further matrix.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    pooling = None
    for module in read_json_list(path):
        match module:
            case {"type": str(kind), "path": str(place)}:
                name = kind.rpartition(".")[2]
            case _:
                raise corrupt(path, f"module {module!r} has no type and path")
        if name not in _PARTS:
            raise unsupported(path, f"module {kind!r} is not supported")
        if name == "Pooling":
            if Path(place).name != place or place == "..":
                raise corrupt(path, f"names a file in another folder: {place}")
            pooling = _mode(folder / place / "config.json")
    return pooling


def _mode(path: Path) -> int:
    values = read_json(path)
    modes = [key for key, value in values.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in _MODES:
        named = ", ".join(modes) or "none"
        raise unsupported(path, f"pooling modes: {named}; only one of {', '.join(_MODES)} is")
    return _MODES[modes[0]]
