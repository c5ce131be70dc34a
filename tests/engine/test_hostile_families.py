"""A file of any family with one thing wrong opens and computes, or is refused by the thing's name.

Each case changes one key or one tensor of a tiny model, by a seed: types, ranges, lengths, shapes.
"""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from family_models import FAMILY_MODELS
from llamad.config import ModelConfig
from llamad.engine.bindings import Engine, EngineModel, Run
from llamad.errors import LlamadError
from llamad.memory.demand import plan_of
from tiny_gguf import FORMATS, Metadata, Tensor, TinySpec, _tensors, encode_gguf, metadata_of

N_KEYS, N_TENSORS = 60, 40
NAN, INF = float("nan"), float("inf")
VALUES: tuple[Metadata, ...] = (
    *(0, 1, 2, 3, 5, 7, 2**15, 2**20, 2**30, 2**31 - 1, 2**31, 2**32 - 1),
    *(0.0, 0.5, -1.0, 1e30, NAN, INF, -INF, True, False, "x", ""),
    *([0], [1], [1, 2], [1] * 2000, [2**31 - 1] * 4, [-1] * 4, ["a"] * 4, [0.5] * 4, [NAN] * 4),
    *([True, False], [0] * 4, [1] * 7, [0] * 3, [1] * 3),
)
# Keys that some family reads, and the others must refuse or need not.
MORE_KEYS = (
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.key_length_swa",
    "attention.shared_kv_layers",
    "attention.recurrent_layers",
    "attention.scale",
    "attention.causal",
    "attention.temperature_scale",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.finetuned",
    "rope.freq_base_swa",
    "rope.dimension_count_swa",
    "nextn_predict_layers",
    "full_attention_interval",
    "embedding_length_per_layer_input",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "expert_count",
    "use_parallel_residual",
    "pooling_type",
    "hidden_activation",
    "ssm.state_size",
    "ssm.group_count",
)


def _bad_keys(spec: TinySpec, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    metadata, tensors = metadata_of(spec), _tensors(spec)
    prefix = f"{spec.architecture}."
    keys = sorted({k for k in metadata if k.startswith(prefix)} | {prefix + k for k in MORE_KEYS})
    for _ in range(N_KEYS):
        key, value = rng.choice(keys), rng.choice(VALUES)
        yield f"{key} = {str(value)[:40]}", encode_gguf(metadata | {key: value}, tensors)


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


def _bad_tensors(spec: TinySpec, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    metadata, tensors = metadata_of(spec), _tensors(spec)
    for _ in range(N_TENSORS):
        i = rng.randrange(len(tensors))
        what, changed = _changed(tensors[i], rng)
        some = [] if changed is None else [changed]
        content = encode_gguf(metadata, [*tensors[:i], *some, *tensors[i + 1 :]])
        yield f"{tensors[i].name}: {what}", content


def _use(path: Path) -> None:
    """Plan, create and run: whatever opens can be used."""
    with EngineModel(path) as model:
        plan_of(model, model.metadata(), ModelConfig(memory_budget=1 << 30, n_sequences=2))
        n_ctx = min(64, model.info.n_ctx_train)
        with Engine(model, n_threads=1, n_ctx=n_ctx) as engine:
            engine.forward([Run([1, *[5] * (min(9, n_ctx) - 1)], 0, (0, 1), 1)])


@pytest.mark.parametrize("family", sorted(FAMILY_MODELS))
def test_what_is_wrong_is_named_or_does_no_harm(family: str, tmp_path: Path) -> None:
    spec = FAMILY_MODELS[family]
    if spec.n_layers > 8:
        spec = replace(spec, n_layers=8)
    rng, path = random.Random(family), tmp_path / "model.gguf"
    refusals: dict[str, str] = {}
    for what, content in (*_bad_keys(spec, rng), *_bad_tensors(spec, rng)):
        path.write_bytes(content)
        try:
            _use(path)
        except LlamadError as error:
            refusals[what] = error.message
    unnamed = {w: m for w, m in refusals.items() if not re.search(r"key '|tensor '", m)}
    assert unnamed == {}
    assert len(refusals) > (N_KEYS + N_TENSORS) / 4
