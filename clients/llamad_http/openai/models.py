"""``/v1/models``: the models of the service."""

from collections.abc import Sequence
from typing import Any

from llamad_http.completion import ModelEntry


def model_list(models: Sequence[ModelEntry]) -> dict[str, Any]:
    """Return the list of all models."""
    return {"object": "list", "data": [model_entry(model) for model in models]}


def model_entry(model: ModelEntry) -> dict[str, Any]:
    """Return one model. ``status`` is llama-server's."""
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.modified),
        "owned_by": "llamad",
        "status": {"value": "loaded" if model.loaded else "unloaded"},
    }
