"""``llamad inspect MODEL``: what a GGUF file holds, without loading it.

Works on every file that the parser accepts: vocabularies without tensors, and architectures that
the engine does not implement. Text from the file is printed with control characters escaped.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import GgufFile, TensorInfo
from llamad.gguf.value import MetadataValue, StringArray
from llamad.help_text import add_command
from llamad.printable import printable
from llamad.sizes import counted, size

HEAD = 8  # elements of an array that are shown
TEXT_COLUMNS = 72  # characters of a value in the text output

Json = bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class TypeShare:
    """How much of the weights one tensor type holds."""

    tensors: int
    elements: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds, as the parser returned it."""

    path: str
    version: int
    file_bytes: int
    metadata: Mapping[str, MetadataValue]
    tensors: Sequence[TensorInfo]

    @property
    def architecture(self) -> str:
        """The architecture's name; empty when the file does not say."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """Return a string entry; empty when it is absent or no string."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def types(self) -> dict[str, TypeShare]:
        """Return each tensor type's share of the weights, the largest first."""
        shares: dict[str, TypeShare] = {}
        for tensor in self.tensors:
            share = shares.get(tensor.type_name, TypeShare(0, 0, 0))
            shares[tensor.type_name] = TypeShare(
                share.tensors + 1,
                share.elements + math.prod(tensor.shape),
                share.n_bytes + tensor.n_bytes,
            )
        return dict(sorted(shares.items(), key=lambda item: -item[1].n_bytes))


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = add_command(
        subparsers,
        "inspect",
        summary="what a model file holds",
        about="Print what a GGUF file holds, without loading it. Any GGUF file will do.",
        examples=("llamad inspect model.gguf", "llamad inspect model.gguf --tensors"),
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="GGUF file")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the file holds; return 0."""
    contents = read(arguments.model)
    if arguments.json:
        print(json.dumps(as_json(contents)))
        return 0
    for line in as_text(contents, with_tensors=arguments.tensors):
        print(line)
    return 0


def read(path: Path) -> Contents:
    """Read the header of a GGUF file. Raises EngineError, which names the path and the fault."""
    with GgufFile(path) as file:
        return Contents(str(path), file.version, file.file_bytes, file.metadata(), file.tensors())


# ---- JSON --------------------------------------------------------------------------------------


def as_json(contents: Contents) -> dict[str, Json]:
    """Return the contents as one JSON object; long arrays as their type, count and head."""
    return {
        "path": contents.path,
        "version": contents.version,
        "file_bytes": contents.file_bytes,
        "architecture": contents.architecture,
        "name": contents.text("general.name"),
        "metadata": {key: _json_value(value) for key, value in contents.metadata.items()},
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.type_name,
                "shape": list(tensor.shape),
                "bytes": tensor.n_bytes,
                "offset": tensor.file_offset,
            }
            for tensor in contents.tensors
        ],
        "types": {
            name: {"tensors": share.tensors, "elements": share.elements, "bytes": share.n_bytes}
            for name, share in contents.types().items()
        },
    }


def _json_value(value: MetadataValue) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN and no infinity
    if not isinstance(value, list | StringArray):
        return value
    if len(value) <= HEAD:
        return [_json_value(item) for item in value]
    head = [_json_value(item) for item in value[:HEAD]]
    return {"type": _element_type(value), "count": len(value), "head": head}


def _element_type(values: Sequence[MetadataValue]) -> str:
    names = {bool: "bool", int: "integer", float: "float", str: "string"}
    return names.get(type(values[0]), "array")


# ---- text --------------------------------------------------------------------------------------


def as_text(contents: Contents, *, with_tensors: bool) -> Iterator[str]:
    """Yield the lines of the report: summary, hyperparameters, weights, metadata, tensors."""
    yield from _summary(contents)
    prefix = f"{contents.architecture}."
    own = {k: v for k, v in contents.metadata.items() if k.startswith(prefix)}
    rest = {k: v for k, v in contents.metadata.items() if k not in own}
    yield from _entries("hyperparameters", {k.removeprefix(prefix): v for k, v in own.items()})
    if contents.tensors:
        yield ""
        yield "weights"
        for name, share in contents.types().items():
            yield f"  {name:<8} {counted(share.tensors, 'tensor'):>12} {size(share.n_bytes):>10}"
    yield from _entries("metadata", rest)
    if with_tensors and contents.tensors:
        yield ""
        yield "tensors"
        yield from _tensor_table(contents.tensors)


def _summary(contents: Contents) -> Iterator[str]:
    elements = sum(share.elements for share in contents.types().values())
    weights = f"{counted(len(contents.tensors), 'tensor')}, {elements / 1e6:.1f} M parameters"
    template = contents.text("tokenizer.chat_template")
    rows = {
        "file": f"{printable(contents.path)} ({size(contents.file_bytes)})",
        "format": f"GGUF v{contents.version}",
        "architecture": printable(contents.architecture) or "unknown",
        "name": printable(contents.text("general.name")) or "none",
        **_adapter(contents),
        "tensors": weights if contents.tensors else "none",
        "vocabulary": _vocabulary(contents),
        "chat template": f"yes, {len(template)} characters" if template else "no",
    }
    for name, value in rows.items():
        yield f"{name:<14} {value}"


def _adapter(contents: Contents) -> dict[str, str]:
    """Return the row of a file that is an adapter of a model; nothing for a model."""
    if contents.text("general.type") != "adapter":
        return {}
    kind = {"lora": "LoRA"}.get(contents.text("adapter.type"), contents.text("adapter.type"))
    halves = [t for t in contents.tensors if t.name.endswith(".lora_a")]
    ranks = {t.shape[1] for t in halves if len(t.shape) > 1}
    of_rank = f", rank {' and '.join(map(str, sorted(ranks)))}" if ranks else ""
    base = contents.text("general.base_model.0.name")
    return {"adapter": printable(f"{kind}{of_rank}{f', made for {base}' if base else ''}")}


def _vocabulary(contents: Contents) -> str:
    tokens = contents.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list | StringArray):
        return "none"
    kind = contents.text("tokenizer.ggml.model") or "unknown"
    pre = contents.text("tokenizer.ggml.pre")
    parts = [counted(len(tokens), "token"), f"model {printable(kind)}"]
    return ", ".join([*parts, f"pre-tokenizer {printable(pre)}"] if pre else parts)


def _entries(title: str, entries: Mapping[str, MetadataValue]) -> Iterator[str]:
    if not entries:
        return
    yield ""
    yield title
    width = max(len(printable(key)) for key in entries)
    for key, value in entries.items():
        yield f"  {printable(key):<{width}}  {_shown(value)}"


def _tensor_table(tensors: Sequence[TensorInfo]) -> Iterator[str]:
    width = max(len(printable(tensor.name)) for tensor in tensors)
    for tensor in tensors:
        shape = " x ".join(str(n) for n in tensor.shape)
        yield (
            f"  {printable(tensor.name):<{width}}  {tensor.type_name:<7} {shape:<16}"
            f" {size(tensor.n_bytes):>10} at {tensor.file_offset}"
        )


def _shown(value: MetadataValue) -> str:
    if isinstance(value, str):
        return _cut(f'"{printable(value)}"')
    if isinstance(value, float):
        return f"{value:.7g}"  # as many digits as a float32 carries
    if not isinstance(value, list | StringArray):
        return str(value).lower()
    head = ", ".join(_shown(item) for item in value[:HEAD])
    more = ", ..." if len(value) > HEAD else ""
    return f"{_cut(f'[{head}{more}]')} ({counted(len(value), 'element')})"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_COLUMNS else text[: TEXT_COLUMNS - 3] + "..."
