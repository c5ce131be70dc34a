"""A file of any family with one thing wrong opens and computes, or is refused by the thing's name.

Each key that the engine reads has one value of ``hostile_keys.py``, by a seed, in each family; and
tensors are changed: types, ranges, lengths, shapes.
"""

import math
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from engine.hostile_keys import (
    FAMILIES,
    NAN,
    TinyFile,
    bounded_memory,
    keys_of_the_engine,
    refusal_of,
    tiny_file,
)
from tiny_gguf import FORMATS, Tensor, encode_gguf

N_TENSORS = 40


def test_the_keys_are_found_in_the_sources() -> None:
    keys = set(keys_of_the_engine())
    assert len(keys) > 70
    assert {"rope.freq_base", "expert_used_count", "attention.layer_norm_epsilon"} <= keys


def _zeros(name: str, type_name: str, shape: tuple[int, ...]) -> Tensor:
    form = FORMATS[type_name]
    return Tensor(name, type_name, shape, bytes(math.prod(shape) // form.block * form.block_bytes))


def _changed(tensor: Tensor, rng: random.Random) -> tuple[str, Tensor | None]:
    """Return what was done to a tensor, and what is left of it."""
    name, (first, *rest), shape = tensor.name, tensor.shape, tensor.shape
    nan = np.full(shape, NAN, np.float32).tobytes()
    changes: dict[str, Tensor | None] = {
        "gone": None,
        "a row more": _zeros(name, "F32", (first + 1, *rest)),
        "a column less": _zeros(name, "F32", (*shape[:-1], max(1, shape[-1] - 1))),
        "a column": _zeros(name, "F32", (1,)),
        "a dimension more": _zeros(name, "F32", (2, *shape)),
        "turned": _zeros(name, "F32", shape[::-1]),
        "F16": _zeros(name, "F16", shape),
        "NaN": Tensor(name, "F32", shape, nan),
        "another name": Tensor("x" + name[1:], tensor.type_name, shape, tensor.data),
    }
    if shape[-1] % 32 == 0:
        changes["Q8_0"] = _zeros(name, "Q8_0", shape)
    what = rng.choice(sorted(changes))
    return what, changes[what]


def _bad_tensors(file: TinyFile, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    tensors = list(file.tensors)
    for _ in range(N_TENSORS):
        i = rng.randrange(len(tensors))
        what, changed = _changed(tensors[i], rng)
        some = [] if changed is None else [changed]
        content = encode_gguf(file.metadata, [*tensors[:i], *some, *tensors[i + 1 :]])
        yield f"{tensors[i].name}: {what}", content


def _bad_keys(file: TinyFile, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for key in file.all_keys():
        value = rng.choice(file.values(key))
        yield f"{key} = {str(value)[:40]}", file.with_key(key, value)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_wrong_is_named_or_does_no_harm(name: str, tmp_path: Path) -> None:
    file, rng = tiny_file(name), random.Random(name)
    faults: dict[str, str] = {}
    n_tried = n_refused = 0
    with bounded_memory():
        for what, content in chain(_bad_keys(file, rng), _bad_tensors(file, rng)):
            n_tried += 1
            try:
                n_refused += bool(refusal_of(tmp_path / "model.gguf", content))
            except AssertionError as error:
                if not (what.endswith(": NaN") and "no numbers" in str(error)):
                    faults[what] = str(error)
    assert faults == {}
    assert n_refused > n_tried / 4
