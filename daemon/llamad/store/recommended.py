"""The sampling that whoever added a model said its makers recommend: ``.NAME.recommended``.

Owns this file beside the model, JSON of parameters and numbers. The catalogue of ``llamactl pull``
is where it comes from; the service does not know that. What the parameters mean is not known here.
Blocking.
"""

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from llamad.logs import fields
from llamad.small_file import read_small, replace_small

log = logging.getLogger(__name__)


def recommended_path(directory: Path, name: str) -> Path:
    """Return where the file of a model of this name lies, or would lie."""
    return directory / f".{name}.recommended"


def remember(directory: Path, name: str, sampling: Mapping[str, float], *, is_new: bool) -> None:
    """Keep what was said of a model; where nothing was, an old one keeps what it had.

    That it cannot be written costs the recommendation and nothing else; the journal says so.
    """
    path = recommended_path(directory, name)
    try:
        if sampling:
            replace_small(path, json.dumps(dict(sampling)).encode() + b"\n")
        elif is_new:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning(
            fields("recommended sampling not kept", model=name, fault=error.strerror or str(error))
        )


def recall(directory: Path, name: str) -> dict[str, object]:
    """Return what was kept of a model; empty for nothing, or for what is no JSON object."""
    data = read_small(recommended_path(directory, name))
    if data is None:
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(data)
        if isinstance(values, dict):
            return values
    log.warning(fields("recommended sampling ignored, the file is no JSON object", model=name))
    return {}


def forget(directory: Path, name: str) -> None:
    """Delete what was kept of a model. Raises OSError."""
    recommended_path(directory, name).unlink(missing_ok=True)
