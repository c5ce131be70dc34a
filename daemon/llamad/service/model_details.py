"""One model for people: what its file says of it, and the settings that its requests get.

Blocking, where the file's head is read.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llamad.config import Config
from llamad.engine.bindings import GgufFile
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.digest import model_digest
from llamad.gguf.value import MetadataValue, RawEntry, ValueType
from llamad.jobs.request import Pooling
from llamad.service.settings import (
    ModelSettings,
    own_sampling,
    recommended_sampling,
    settings_of,
)
from llamad.service.state import ModelFacts
from llamad.store.registry import ModelFile, ModelRegistry, check_name
from llamad.text.channels import ANALYSIS_HEAD
from llamad.text.thinking import find_marks

MAX_TEXT_CHARACTERS = 1024  # of a text among the metadata
TEMPLATE_KEY = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class FileDetails:
    """What a model's file says; texts are empty and numbers 0 where it does not."""

    file: ModelFile
    title: str
    architecture: str
    licence: str
    parameters: int
    quantization: str
    n_ctx_train: int
    chat_template: str
    metadata: tuple[tuple[str, str, int], ...]  # key, JSON, length
    values: dict[str, MetadataValue]  # all but the arrays
    digest: str
    modified_at: float  # seconds since 1970
    capabilities: tuple[str, ...]


class KnownModels:
    """The models of the directory and the loaded one, with the configuration's word on each."""

    def __init__(self, config: Config, registry: ModelRegistry) -> None:
        self._config = config
        self._registry = registry

    def of_loaded(self, model: ModelFacts) -> ModelSettings:
        """Return the settings of the loaded model; quick."""
        return settings_of(self._config, model.name, model.own_sampling, model.recommended_sampling)

    def describe(self, name: str, loaded: ModelFacts | None) -> tuple[FileDetails, ModelSettings]:
        """Return what there is to say of a model of this name. Blocking.

        Raises INVALID_NAME, MODEL_NOT_FOUND, and what the file's head is refused for.
        """
        if loaded is not None and loaded.name == name:
            file = ModelFile(name, Path(loaded.path), loaded.file_bytes)
        else:
            file = self._registry.require(check_name(name))
        details = read_details(file)
        own = own_sampling(name, details.values)
        recommended = recommended_sampling(name, self._registry.recommended(file))
        return details, settings_of(self._config, file.name, own, recommended)


def read_details(file: ModelFile) -> FileDetails:
    """Read a model's head. Raises EngineError, which names the path and the fault."""
    with GgufFile(file.path) as opened:
        entries = opened.raw_metadata()
        tensors = opened.tensors()
    values = {e.key: e.decode() for e in entries if e.type_id != ValueType.ARRAY}
    architecture = _text(values, "general.architecture")
    weights: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            weights[tensor.type_name] += math.prod(tensor.shape)
    context = values.get(f"{architecture}.context_length")
    template = _text(values, TEMPLATE_KEY)
    digest, modified_at = _identity(file.path)
    return FileDetails(
        file=file,
        title=_text(values, "general.name"),
        architecture=architecture,
        licence=_text(values, "general.license"),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        quantization=weights.most_common(1)[0][0] if weights else "",
        n_ctx_train=min(context, (1 << 32) - 1) if isinstance(context, int) and context > 0 else 0,
        chat_template=template,
        metadata=tuple(_rows(entries, values)),
        values=values,
        digest=digest,
        modified_at=modified_at,
        capabilities=tuple(_capabilities(template, values.get(f"{architecture}.pooling_type"))),
    )


def _identity(path: Path) -> tuple[str, float]:
    """Return the digest of a file and when it was written. Raises MODEL_UNREADABLE."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns), stat.st_mtime
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise LlamadError(ErrorKind.STATE, "MODEL_UNREADABLE", message) from None


@lru_cache(maxsize=64)
def _digest(path: Path, _n_bytes: int, _mtime_ns: int) -> str:
    return model_digest(path)  # 2 MiB, all over the file


def _capabilities(template: str, pooling: MetadataValue | None) -> Iterator[str]:
    """Yield what a model with this template can do, in the words of Ollama.

    pooling: of its file, other than 0 where it was made for vectors, or to rank, and nothing else.
    """
    if pooling:
        if pooling in [one.value for one in Pooling]:
            yield "embedding"
        return
    yield "completion"
    yield "tools"  # a template that knows none is told of them by text of ours
    if find_marks(template, (), ()).pairs or ANALYSIS_HEAD in template:
        yield "thinking"


def _text(values: dict[str, MetadataValue], key: str) -> str:
    value = values.get(key)
    return _valid(value) if isinstance(value, str) else ""


def _valid(text: str) -> str:
    """Return text that a message can hold: what was no UTF-8 is shown as U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _rows(
    entries: list[RawEntry], values: dict[str, MetadataValue]
) -> Iterator[tuple[str, str, int]]:
    for entry in entries:
        key, value = _valid(entry.key), values.get(entry.key)
        if isinstance(value, str):
            text = _valid(value)
            shown = json.dumps(text[:MAX_TEXT_CHARACTERS], ensure_ascii=False)
            yield key, shown, len(text)
        elif value is None:
            yield key, "", entry.count
        else:
            finite = not isinstance(value, float) or math.isfinite(value)
            yield key, json.dumps(value if finite else str(value)), 0
