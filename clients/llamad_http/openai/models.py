"""``/v1/models``: the models of the service, and the adapters beside the loaded one as vLLM's.

Anthropic's API has the same address, so what its libraries read is there, too.
"""

from collections.abc import Sequence
from typing import Any

from llamad_http.completion import ModelEntry

UNKNOWN_TIME = "1970-01-01T00:00:00Z"  # as Anthropic's reference says


def model_list(models: Sequence[ModelEntry], base: str) -> dict[str, Any]:
    """Return the list of all that requests may name; base: the loaded model."""
    data = [model_entry(model, base) for model in models if model.is_served_name]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": False, **ends}


def model_entry(model: ModelEntry, base: str) -> dict[str, Any]:
    """Return one model. ``status`` is llama-server's, ``parent`` vLLM's: of an adapter."""
    entry: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": int(model.modified),
        "owned_by": "llamad",
        "status": {"value": "loaded" if model.loaded else "unloaded"},
        "type": "model",
        "display_name": model.name,
        "created_at": UNKNOWN_TIME,
    }
    return {**entry, "parent": base} if model.is_adapter else entry
