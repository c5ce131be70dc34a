"""``/props`` and ``/slots``: what the service is, for programs."""

import json
from typing import Any

from llamad_client import ModelDetails, Status

_PARAMETERS = {
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
}


def properties(status: Status, model: ModelDetails, version: str) -> dict[str, Any]:
    """Return the answer of ``/props``; of the model's path only the file's name."""
    parameters = {
        setting.name: json.loads(setting.value)
        for setting in model.settings
        if setting.name in _PARAMETERS
    }
    return {
        "default_generation_settings": {"n_ctx": model.n_ctx or 0, "params": parameters},
        "total_slots": status.sequence_slots,
        "model_path": model.path.rpartition("/")[2],
        "model_alias": model.name,
        "chat_template": model.chat_template,
        "chat_template_caps": {},
        "modalities": {"vision": False, "audio": False},
        "build_info": f"b-llamad-{version}",
        "is_sleeping": False,
    }


def slots(status: Status) -> list[dict[str, Any]]:
    """Return the answer of ``/slots``: which are busy, and nothing of what is in them."""
    n_ctx = status.model.n_ctx if status.model is not None else 0
    return [
        {"id": n, "n_ctx": n_ctx, "speculative": False, "is_processing": n < status.jobs_running}
        for n in range(status.sequence_slots)
    ]
