"""Models as Ollama tells of them: in ``/api/tags``, ``/api/ps`` and ``/api/show``."""

import hashlib
import json
from typing import Any

from llamad_client import ModelDetails
from llamad_http.administration import Progress
from llamad_http.exchange import dump
from llamad_http.ollama.times import rfc3339

FOREVER = "2318-01-01T00:00:00Z"  # the model stays
_PARAMETERS = {"repeat_penalty", "temperature", "top_k", "top_p", "min_p", "repeat_last_n", "stop"}


def tag(model: ModelDetails) -> dict[str, Any]:
    """Return a model of ``/api/tags``."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": rfc3339(model.modified_at),
        "size": model.file_bytes,
        "digest": digest(model),
        "details": details(model),
    }


def process(model: ModelDetails) -> dict[str, Any]:
    """Return a model of ``/api/ps``."""
    entry = tag(model)
    del entry["modified_at"]
    return {**entry, "expires_at": FOREVER, "size_vram": 0, "context_length": model.n_ctx or 0}


def show(model: ModelDetails) -> dict[str, Any]:
    """Return the answer of ``/api/show``."""
    return {
        "license": model.licence,
        "modelfile": f"FROM {model.name}\n",
        "parameters": parameters(model),
        "template": model.chat_template,
        "details": details(model),
        "model_info": model_info(model),
        "capabilities": list(model.capabilities),
        "modified_at": rfc3339(model.modified_at),
    }


def digest(model: ModelDetails) -> str:
    """Return 64 hexadecimal digits, as programs expect them; twice those of the service."""
    return model.digest * 2


def details(model: ModelDetails) -> dict[str, Any]:
    """Return the object ``details``."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.architecture,
        "families": [model.architecture],
        "parameter_size": parameter_size(model.parameters),
        "quantization_level": model.quantization,
    }


def parameter_size(count: int) -> str:
    """Return a count of parameters as 135M or 1.5B."""
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f}B"
    return f"{count / 1e6:.2f}M" if count < 100_000_000 else f"{count / 1e6:.0f}M"


def parameters(model: ModelDetails) -> str:
    """Return what requests get where they do not say, a line each: a name and a value."""
    lines = [f"num_ctx {model.n_ctx or model.n_ctx_train}"]
    for setting in model.settings:
        if setting.name in _PARAMETERS and setting.source != "built_in":
            lines.append(f"{setting.name} {setting.value}")
    return "\n".join(lines)


def model_info(model: ModelDetails) -> dict[str, Any]:
    """Return the metadata of the file; a context that is served goes over that of training."""
    info: dict[str, Any] = {}
    for entry in model.metadata:
        if entry.value and entry.key != "tokenizer.chat_template":
            info[entry.key] = json.loads(entry.value)
    info["general.parameter_count"] = model.parameters
    if model.n_ctx is not None:
        info[f"{model.architecture}.context_length"] = model.n_ctx
    return info


def pull_line(name: str, progress: Progress | None, status: str) -> bytes:
    """Return a line of ``/api/pull``. The digest tells programs which bar of theirs it moves."""
    line: dict[str, Any] = {"status": status}
    if progress is not None:
        line["digest"] = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        line["completed"] = progress.done_bytes
        if progress.file_bytes is not None:
            line["total"] = progress.file_bytes
    return dump(line) + b"\n"
