"""A PEFT folder: an adapter (LoRA) of a Hugging Face model, as the tensors of a GGUF adapter.

Owns how pairs become GGUF's: what the family's tables make of a matrix W of the base, B gets of its
rows and A of its columns. Names are those of llama.cpp's adapters: the base's tensor and ".lora_a"
or ".lora_b". Sources: huggingface/peft for the folder, gguf-py (Keys.Adapter) for the keys.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llamad_tools.checkpoints.huggingface_family import Family
from llamad_tools.checkpoints.huggingface_folder import arranged, gguf_name
from llamad_tools.checkpoints.huggingface_weights import open_pytorch
from llamad_tools.checkpoints.huggingface_wrapper import text_name
from llamad_tools.checkpoints.hyperparameters import Shape
from llamad_tools.checkpoints.lora_base import LoraBase, open_lora_base
from llamad_tools.checkpoints.lora_config import LoraConfig, read_lora_config
from llamad_tools.checkpoints.safetensors_file import open_safetensors
from llamad_tools.checkpoints.source import (
    MAX_QUOTED,
    Checkpoint,
    Floats,
    Metadata,
    Rows,
    SourceTensor,
    corrupt,
    scale_rows,
    unsupported,
)
from llamad_tools.checkpoints.tensor_order import Order, pick, pick_columns

CONFIG = "adapter_config.json"
LORA_TYPES = ("F32", "F16", "BF16", "Q8_0")  # of an adapter's file, as the engine
_SAFETENSORS, _PYTORCH = "adapter_model.safetensors", "adapter_model.bin"
_HALF = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_BASE = re.compile(r"(base_model\.model\..+)\.base_layer\.weight")  # of an adapted output matrix
_FLOATS = ("F32", "F16", "BF16")
_PIECE_BYTES = 16 << 20  # of a probe, read at once
_MOST_NUMBERED = 1 << 24  # rows or columns that float32 numbers exactly


def is_lora_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def open_lora_folder(folder: Path, base_path: Path) -> Checkpoint:
    """Read everything but the weights. base_path: the model's folder, or a GGUF file of it.

    Raises LlamadError that names the file and the field or the tensor.
    """
    if not (folder / CONFIG).is_file():
        raise unsupported(folder, f"has no {CONFIG}: no PEFT folder, so there is no base to it")
    config = read_lora_config(folder / CONFIG)
    base = open_lora_base(base_path)
    files = ExitStack()
    try:
        path, stored = _open(folder, files)
        tensors = list(_Conversion(path, config, base).tensors(_pairs(path, stored)))
        return Checkpoint(_metadata(folder, config, base), tensors, files)
    except BaseException:
        files.close()
        raise


def _open(folder: Path, files: ExitStack) -> tuple[Path, Mapping[str, SourceTensor]]:
    for name, opener in ((_SAFETENSORS, open_safetensors), (_PYTORCH, open_pytorch)):
        if (folder / name).exists():
            return folder / name, opener(folder / name, files, lambda name: True)
    raise corrupt(folder, f"has neither {_SAFETENSORS} nor {_PYTORCH}")


def _metadata(folder: Path, config: LoraConfig, base: LoraBase) -> Metadata:
    organization, _, name = config.base.strip("/").rpartition("/")
    result: Metadata = {
        "general.type": "adapter",
        "general.architecture": base.architecture,
        "general.name": folder.resolve().name,
        "general.base_model.count": 1,
        "general.base_model.0.name": name or base.name,
        "adapter.type": "lora",
        "adapter.lora.alpha": config.alpha,
    }
    if organization and "/" not in organization and not config.base.startswith(("/", ".")):
        result["general.base_model.0.organization"] = organization
    return result


@dataclass(frozen=True, slots=True)
class _Pair:
    """A and B of a module of the base: (rank, columns of W) and (rows of W, rank)."""

    module: str
    a: SourceTensor
    b: SourceTensor

    @property
    def shape(self) -> Shape:
        """That of W."""
        return self.b.n_rows, self.a.n_cols


def _pairs(path: Path, stored: Mapping[str, SourceTensor]) -> list[_Pair]:
    """Return the pairs of the text model, in the order of the file."""
    halves: dict[str, dict[str, SourceTensor]] = {}
    for name, tensor in stored.items():
        copied = _BASE.fullmatch(name)
        if copied is not None and f"{copied[1]}.lora_A.weight" in stored:
            continue  # PEFT keeps the base's own weight beside a pair of its output matrix
        match = _HALF.fullmatch(name)
        if match is None:
            raise unsupported(
                path,
                f"tensor {name[:MAX_QUOTED]!a} is no half of a pair of a matrix (lora_A.weight)",
            )
        if len(tensor.shape) != 2 or tensor.type_name not in _FLOATS:
            raise unsupported(
                path, f"{name} is {tensor.type_name} of shape {tensor.shape}, only matrices are"
            )
        halves.setdefault(match[1], {})[match[2]] = tensor
    pairs = []
    for module, found in halves.items():
        for other, one in ("AB", "BA"):
            if one not in found:
                stem = f"base_model.model.{module}.lora_"
                raise corrupt(path, f"{stem}{other}.weight has no {stem}{one}.weight beside it")
        if text_name(f"{module}.weight") is not None:
            pairs.append(_Pair(module, found["A"], found["B"]))
    if not pairs:
        raise corrupt(path, "has no pair of the text model")
    return pairs


@dataclass(frozen=True, slots=True)
class _Part:
    """What is made of a matrix W: a GGUF tensor of some rows, each times a factor, and columns."""

    name: str
    rows: Order
    factors: Floats
    columns: Order


@dataclass(slots=True)
class _Conversion:
    """One adapter's; path: of its weights, for messages."""

    path: Path
    config: LoraConfig
    base: LoraBase
    _known: dict[tuple[str, Shape], list[_Part]] = field(default_factory=dict)  # of a layer

    def tensors(self, pairs: list[_Pair]) -> Iterator[SourceTensor]:
        """Yield A and B of every tensor of the base that the pairs are of."""
        family = self._family(pairs)
        for pair in pairs:
            self._check_rank(pair)
            scale = self.config.scale_of(pair.module) * pair.a.n_rows / self.config.alpha
            for part in self._parts(pair, family):
                self._check_shape(pair, part.name, (len(part.rows), len(part.columns)))
                yield _columns(pair.a, part.columns).renamed(f"{part.name}.lora_a")
                b = _rows(pair.b, part.rows, part.factors * np.float32(scale))
                yield b.renamed(f"{part.name}.lora_b")

    def _check_rank(self, pair: _Pair) -> None:
        rank, name = self.config.rank_of(pair.module), f"{pair.module}.lora"
        if pair.a.n_rows != rank:
            raise corrupt(
                self.path,
                f"{name}_A.weight has rank {pair.a.n_rows}, {self.config.path.name} says {rank}",
            )
        if pair.b.n_cols != rank:
            raise corrupt(
                self.path, f"{name}_B.weight has {pair.b.n_cols} columns, its A has {rank} rows"
            )

    def _family(self, pairs: list[_Pair]) -> Family:
        """Return the first family of the base that knows every module."""
        unknown = ""
        for family in self.base.families:
            strange = (p.module for p in pairs if _gguf_name(p.module, family) is None)
            found = next(strange, None)
            if found is None:
                return family
            unknown = unknown or found
        raise unsupported(self.path, f"{unknown} is no matrix of a {self.base.architecture} model")

    def _parts(self, pair: _Pair, family: Family) -> list[_Part]:
        """Return what the family's tables make of the matrix that a pair is of.

        They are asked where each row and column went; an order is the same in all layers.
        """
        name = _gguf_name(pair.module, family)
        assert name is not None
        if name == "token_embd.weight":
            raise unsupported(self.path, f"{pair.module}: adapters of an embedding are not")
        block = re.match(r"blk\.\d+\.", name)
        prefix = "" if block is None else block[0]
        inner = name.removeprefix(prefix)
        if (inner, pair.shape) not in self._known:
            made = list(self._probe(name, pair, family))
            self._known[inner, pair.shape] = [
                replace(part, name=part.name.removeprefix(prefix)) for part in made
            ]
        return [replace(p, name=prefix + p.name) for p in self._known[inner, pair.shape]]

    def _probe(self, name: str, pair: _Pair, family: Family) -> Iterator[_Part]:
        n_cols = pair.a.n_cols

        def made(read: Callable[[int, int], Floats]) -> list[SourceTensor]:
            def read_rows(start: int, stop: int) -> Rows:
                return np.ascontiguousarray(read(start, stop), np.float32).view(np.uint8)

            matrix = SourceTensor(name, pair.shape, "F32", read_rows)
            base = self.base
            return arranged(self.path, family, base.config, base.head_dim, matrix)

        ones = made(lambda start, stop: np.ones((stop - start, n_cols), np.float32))
        by_row = made(lambda start, stop: np.repeat(_numbers(start, stop)[:, None], n_cols, 1))
        by_column = made(lambda start, stop: np.tile(_numbers(0, n_cols), (stop - start, 1)))
        for one, rows, columns in zip(ones, by_row, by_column, strict=True):
            if len(one.shape) != 2:
                raise unsupported(self.path, f"{pair.module}: adapters of experts are not")
            self._check_shape(pair, one.name, one.shape)  # before all of it is read
            factors = _first_column(one)
            order = np.rint(_first_column(rows) / factors).astype(np.int64) - 1
            first = columns.read_rows(0, 1).view(np.float32)[0] / factors[0]
            yield _Part(one.name, order, factors, np.rint(first).astype(np.int64) - 1)

    def _check_shape(self, pair: _Pair, name: str, shape: Shape) -> None:
        expected = self.base.shapes.get(name)
        if expected is None:
            raise corrupt(self.path, f"{pair.module}: the base has no {name}")
        if shape != expected or max(shape) > _MOST_NUMBERED:
            raise corrupt(
                self.path,
                f"{pair.module} is of a matrix of shape {shape}, {name} of the base has {expected}",
            )


def _gguf_name(module: str, family: Family) -> str | None:
    """Return the name of the matrix of a module; None: the family has no such matrix.

    A model without a head, as those that make vectors are trained, has no "model." in front.
    """
    alone = text_name(f"{module}.weight")
    for name in (alone, f"model.{alone}"):
        try:
            return gguf_name(str(name), family)
        except KeyError:
            pass
    return None


def _numbers(start: int, stop: int) -> Floats:
    """Return the numbers of rows or columns, from 1."""
    return np.arange(start + 1, stop + 1, dtype=np.float32)


def _first_column(matrix: SourceTensor) -> Floats:
    step = max(_PIECE_BYTES // (4 * matrix.n_cols), 1)
    pieces = [
        matrix.read_rows(start, min(start + step, matrix.n_rows)).view(np.float32)[:, 0]
        for start in range(0, matrix.n_rows, step)
    ]
    return np.concatenate(pieces)


def _columns(tensor: SourceTensor, order: Order) -> SourceTensor:
    return tensor if _in_order(order, tensor.n_cols) else pick_columns(tensor, order)


def _rows(tensor: SourceTensor, order: Order, factors: Floats) -> SourceTensor:
    ordered = tensor if _in_order(order, tensor.n_rows) else pick(tensor, order)
    return ordered if (factors == 1).all() else scale_rows(ordered, factors)


def _in_order(order: Order, n: int) -> bool:
    return np.array_equal(order, np.arange(n))
