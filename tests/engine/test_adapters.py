"""Adapters: logits as of merged weights, within a bound; no bit of a row depends on its company."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.feeding import Logits, bits, random_tokens
from engine.test_forward import F16_STEP, FLOAT_NOISE, INT8_STEP, row_errors
from family_models import FAMILY_MODELS
from llamad.engine.bindings import (
    MAX_RANK,
    Adapter,
    AdapterUse,
    Engine,
    EngineError,
    EngineModel,
    Role,
    adapter_room_bytes,
    kernel_set,
)
from llamad.engine.single_sequence import SingleSequence, blocks_for
from llamad.errors import ErrorKind
from reference import engine_rounding, forward, load
from tiny_adapter import (
    LAYER_MATRICES,
    TinyAdapter,
    adapter_metadata,
    adapter_tensors,
    merged,
    reached,
    write_tiny_adapter,
)
from tiny_gguf import TinyModelPath, TinySpec, encode_gguf, matrices

N_CTX = 64
TOKENS = random_tokens(7, 40)


@contextmanager
def open_engine(
    path: Path,
    *,
    n_sequences: int = 1,
    n_threads: int = 2,
    kv_type: str = "f16",
    cpu: str | None = None,
) -> Iterator[tuple[EngineModel, Engine]]:
    with (
        EngineModel(path) as model,
        Engine(
            model,
            n_threads=n_threads,
            n_ctx=N_CTX,
            n_blocks=n_sequences * blocks_for(N_CTX),
            n_states=2 * n_sequences,
            n_batch=4 * N_CTX,
            n_logits=4 * N_CTX,
            kv_type=kv_type,
            cpu=cpu,
        ) as engine,
    ):
        engine.reserve_adapters(MAX_RANK)
        yield model, engine


def feed(
    engine: Engine, use: AdapterUse | None, *, tokens: list[int] = TOKENS, chunk: int = 40
) -> Logits:
    """Return the logits of tokens of a new sequence that go through an adapter."""
    sequence = SingleSequence(engine)
    rows = []
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk]
        engine.forward([replace(sequence.run(part, len(part)), adapter=use)])
        sequence.length += len(part)
        rows += [np.array(engine.logits(k)) for k in range(len(part))]
    return np.stack(rows)


# ---- the arithmetic -----------------------------------------------------------------------------

FAMILIES = [
    spec
    for spec in FAMILY_MODELS.values()
    if spec.architecture not in ("bert", "nomic-bert", "jina-bert-v2", "eurobert")
    and reached(spec, TinyAdapter())
]


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.architecture)
def test_unmerged_equals_merged_in_every_family(
    tiny_model_path: TinyModelPath, tmp_path: Path, spec: TinySpec
) -> None:
    spec = replace(spec, weight_type="F32")
    assert_equals_merged(tiny_model_path(spec), tmp_path, spec, TinyAdapter(), bound=F16_STEP)


def assert_equals_merged(
    path: Path, tmp_path: Path, spec: TinySpec, adapter: TinyAdapter, *, bound: float
) -> None:
    file = write_tiny_adapter(tmp_path / "adapter.gguf", spec, adapter)
    oracle = load(path)
    scale = -0.7
    expected = forward(
        merged(oracle, spec, adapter, scale), TOKENS, engine_rounding("f16"), n_ctx=N_CTX
    )
    plain = forward(oracle, TOKENS, engine_rounding("f16"), n_ctx=N_CTX)
    with open_engine(path) as (model, engine), Adapter(model, file) as opened:
        for chunk in (40, 7, 1):
            actual = feed(engine, AdapterUse(opened, scale), chunk=chunk)
            assert row_errors(actual, expected).max() <= bound, chunk
        assert row_errors(actual, plain).max() > 0.1, "the adapter changes next to nothing"


@pytest.mark.parametrize("weight_type", ["F16", "Q8_0", "Q4_0", "Q4_K"])
def test_unmerged_equals_merged_with_other_base_types(
    tiny_model_path: TinyModelPath, tmp_path: Path, weight_type: str
) -> None:
    spec = TinySpec(weight_type=weight_type, dim=256, hidden_dim=512)
    bound = F16_STEP if weight_type == "F16" else INT8_STEP
    assert_equals_merged(tiny_model_path(spec), tmp_path, spec, TinyAdapter(), bound=bound)


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("rank", [1, 7, 32, MAX_RANK])
def test_every_type_and_rank_of_an_adapter(
    tiny_model_path: TinyModelPath, tmp_path: Path, type_name: str, rank: int
) -> None:
    spec = TinySpec()
    adapter = TinyAdapter(rank=rank, alpha=2.0 * rank, type_name=type_name, size=rank**0.5 / 2)
    assert_equals_merged(tiny_model_path(spec), tmp_path, spec, adapter, bound=F16_STEP)


@pytest.mark.parametrize("target", [*LAYER_MATRICES[:3], *LAYER_MATRICES[5:9], "output"])
def test_each_matrix_alone(tiny_model_path: TinyModelPath, tmp_path: Path, target: str) -> None:
    spec = TinySpec()
    adapter = TinyAdapter(targets=[target], alpha=None, size=8.0)
    assert_equals_merged(tiny_model_path(spec), tmp_path, spec, adapter, bound=F16_STEP)


def test_scale_zero_adds_nothing_that_is_not_noise(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    spec = TinySpec()
    path = tiny_model_path(spec)
    file = write_tiny_adapter(tmp_path / "adapter.gguf", spec)
    with open_engine(path) as (model, engine), Adapter(model, file) as opened:
        plain = feed(engine, None)
        assert row_errors(feed(engine, AdapterUse(opened, 0.0)), plain).max() <= FLOAT_NOISE


# ---- the batch ----------------------------------------------------------------------------------

BATCH_MODELS = {
    "llama F32": TinySpec(),
    "llama Q4_0": TinySpec(weight_type="Q4_0", dim=96, hidden_dim=160),
    "llama Q4_K": TinySpec(weight_type="Q4_K", dim=256, hidden_dim=512),
    "phi3": replace(FAMILY_MODELS["phi3"], weight_type="Q8_0"),
    "qwen3": replace(FAMILY_MODELS["qwen3"], weight_type="Q4_0"),
}
PROMPTS = [random_tokens(seed, 33) for seed in range(4)]


def together(engine: Engine, uses: list[AdapterUse | None], chunk: int) -> list[Logits]:
    """Feed a prompt for each adapter, all in the same steps; return each one's logits."""
    sequences = [SingleSequence(engine, i) for i in range(len(uses))]
    rows: list[list[Logits]] = [[] for _ in uses]
    for start in range(0, 33, chunk):
        parts = [prompt[start : start + chunk] for prompt in PROMPTS[: len(uses)]]
        runs = [
            replace(sequence.run(part, len(part)), adapter=use)
            for sequence, part, use in zip(sequences, parts, uses, strict=True)
        ]
        engine.forward(runs)
        k = 0
        for i, part in enumerate(parts):
            sequences[i].length += len(part)
            rows[i] += [np.array(engine.logits(k + j)) for j in range(len(part))]
            k += len(part)
    return [np.stack(found) for found in rows]


@pytest.mark.parametrize("name", BATCH_MODELS)
def test_rows_of_a_batch_are_as_alone(
    tiny_model_path: TinyModelPath, tmp_path: Path, name: str
) -> None:
    spec = BATCH_MODELS[name]
    path = tiny_model_path(spec)
    files = [
        write_tiny_adapter(tmp_path / "a.gguf", spec, TinyAdapter()),
        write_tiny_adapter(tmp_path / "b.gguf", spec, TinyAdapter(rank=9, type_name="F16", seed=2)),
    ]
    with open_engine(path) as (model, engine):
        plain = [bits(feed(engine, None, tokens=prompt)) for prompt in PROMPTS]
    for n_threads, cpu in ((1, None), (2, None), (5, None), (2, "generic")):
        with (
            open_engine(path, n_sequences=4, n_threads=n_threads, cpu=cpu) as (model, engine),
            Adapter(model, files[0]) as a,
            Adapter(model, files[1]) as b,
        ):
            uses = [AdapterUse(a), None, AdapterUse(b), AdapterUse(a, 0.5)]
            alone = [
                bits(feed(engine, use, tokens=prompt, chunk=33))
                for use, prompt in zip(uses, PROMPTS, strict=True)
            ]
            if n_threads == 1:
                first = alone
            assert alone == first, "threads or kernels change an adapted row"
            assert alone[1] == plain[1], "a row without adapter"
            for chunk in (33, 5, 1):
                assert [bits(rows) for rows in together(engine, uses, chunk)] == first, chunk
    assert kernel_set("generic") == "generic"
    assert len({*first, *plain}) == 7, "each adapter and scale gives other logits"


STREAMED_MIXTURES = {  # rows of experts of several pages, so that half of them are not in memory
    "qwen3moe": replace(
        FAMILY_MODELS["qwen3moe"], dim=256, expert_dim=256, n_experts=16, weight_type="Q4_K"
    ),
    "qwen2moe": replace(FAMILY_MODELS["qwen2moe"], weight_type="Q8_0"),  # a shared expert
    "lfm2moe": replace(FAMILY_MODELS["lfm2moe"], weight_type="Q8_0"),  # states, dense layers
    "gemma4-moe": replace(FAMILY_MODELS["gemma4-moe"], weight_type="Q8_0"),  # dense beside them
    "gpt-oss": replace(FAMILY_MODELS["gpt-oss"], weight_type="Q8_0"),
}


@pytest.mark.parametrize("family", STREAMED_MIXTURES)
def test_beside_experts_that_stream_rows_are_as_alone(
    tiny_model_path: TinyModelPath, tmp_path: Path, family: str
) -> None:
    """Two adapters and a row without, in one batch; alone and with all experts in memory."""
    spec = STREAMED_MIXTURES[family]
    path = tiny_model_path(spec)
    files = [
        write_tiny_adapter(tmp_path / "a.gguf", spec, TinyAdapter()),
        write_tiny_adapter(tmp_path / "b.gguf", spec, TinyAdapter(rank=9, type_name="F16", seed=2)),
    ]
    found = []
    for streams in (False, True):
        with open_engine(path, n_sequences=4) as (model, engine):
            extents = model.extents()
            if streams:
                resident = [e.role is not Role.EXPERT or i % 3 == 0 for i, e in enumerate(extents)]
                assert not all(resident)
                model.set_residency(resident, 8 << 20, expert_slots=spec.n_experts)
            with Adapter(model, files[0]) as a, Adapter(model, files[1]) as b:
                uses = [AdapterUse(a), None, AdapterUse(b), AdapterUse(a, 0.5)]
                pairs = zip(uses, PROMPTS, strict=True)
                found.append([bits(feed(engine, u, tokens=p, chunk=33)) for u, p in pairs])
                for chunk in (33, 5, 1):
                    found.append([bits(rows) for rows in together(engine, uses, chunk)])
    assert all(each == found[0] for each in found)
    assert len(set(found[0])) == 4


# ---- what is refused ----------------------------------------------------------------------------


def write(path: Path, spec: TinySpec, adapter: TinyAdapter, **changed: object) -> Path:
    """Write an adapter whose metadata or tensors are changed."""
    metadata = adapter_metadata(spec, adapter) | changed.get("metadata", {})  # type: ignore[operator]
    metadata = {key: value for key, value in metadata.items() if value is not None}
    tensors = changed.get("tensors", adapter_tensors(spec, adapter))
    path.write_bytes(encode_gguf(metadata, tensors))  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"general.type": "model"}, "key 'general.type' is 'model', must be 'adapter'"),
        ({"general.type": None}, "key 'general.type' is '', must be 'adapter'"),
        (
            {"general.architecture": "qwen2"},
            "key 'general.architecture' is 'qwen2', must be 'llama'",
        ),
        ({"adapter.type": "control_vector"}, "key 'adapter.type' is 'control_vector'"),
        ({"adapter.lora.alpha": float("nan")}, "key 'adapter.lora.alpha' is not a finite number"),
        ({"adapter.lora.alpha": "eight"}, "key 'adapter.lora.alpha': type string"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, "key 'adapter.alora.invocation_tokens'"),
    ],
)
def test_a_wrong_key_is_named(
    tiny_model_path: TinyModelPath, tmp_path: Path, metadata: dict[str, object], fault: str
) -> None:
    spec = TinySpec()
    file = write(tmp_path / "bad.gguf", spec, TinyAdapter(), metadata=metadata)
    assert_refused(tiny_model_path(spec), file, fault)


def assert_refused(model_path: Path, file: Path, fault: str) -> None:
    with EngineModel(model_path) as model, pytest.raises(EngineError) as caught:
        Adapter(model, file)
    assert str(file) in str(caught.value)
    assert fault in str(caught.value)


def _changed(index: int, **values: object) -> list[Any]:
    tensors = adapter_tensors(TinySpec(), TinyAdapter(targets=["attn_q"]))
    tensors[index] = replace(tensors[index], **values)  # type: ignore[arg-type]
    return list(tensors)


def _zeros(name: str, *shape: int) -> dict[str, object]:
    return {"name": name, "shape": shape, "data": bytes(4 * int(np.prod(shape)))}


Q = "blk.0.attn_q.weight"


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ([], "the adapter has no tensors"),
        (_changed(0, name=Q), f"tensor '{Q}': an adapter's end in '.lora_a' or '.lora_b'"),
        (_changed(0, name=".lora_a"), "tensor '.lora_a': an adapter's end in"),
        (_changed(0, name="x" * 200 + ".lora_a"), "...': an adapter's end in"),
        (_changed(0)[1:], f"tensor '{Q}.lora_a' is missing"),
        ([_changed(0)[0]], f"tensor '{Q}.lora_b' is missing"),
        (_changed(0, **_zeros(f"{Q}.lora_a", 4, 63)), f"tensor '{Q}.lora_a' has shape (63, 4)"),
        (_changed(1, **_zeros(f"{Q}.lora_b", 64, 3)), f"tensor '{Q}.lora_b' has shape (3, 64)"),
        (_changed(1, **_zeros(f"{Q}.lora_b", 65, 4)), "must be (4, 64)"),
        (_changed(0, **_zeros(f"{Q}.lora_a", 2, 4, 64)), f"tensor '{Q}.lora_a' has shape"),
        (_changed(0, **_zeros(f"{Q}.lora_a", 257, 64)), "has rank 257, must be 1 to 256"),
        (
            [replace(t, name=t.name.replace("blk.0", "blk.9")) for t in _changed(0)[:2]],
            "tensor 'blk.9.attn_q.weight.lora_a': the model has no 'blk.9.attn_q.weight'",
        ),
        (
            _changed(0, type_name="Q4_0", data=bytes(4 * 64 // 32 * 18)),
            f"tensor '{Q}.lora_a' has type Q4_0, must be F32, F16, BF16 or Q8_0",
        ),
        (
            _changed(1, data=b"\x00\x00\xc0\x7f" + bytes(4 * 255)),
            f"tensor '{Q}.lora_b' has a number that is not finite",
        ),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named(
    tiny_model_path: TinyModelPath, tmp_path: Path, tensors: list[object], fault: str
) -> None:
    spec = TinySpec()
    file = write(tmp_path / "bad.gguf", spec, TinyAdapter(), tensors=tensors)
    assert_refused(tiny_model_path(spec), file, fault)


@pytest.mark.parametrize(
    ("family", "tensor"),
    [
        ("llama", "token_embd.weight"),
        ("gemma", "token_embd.weight"),  # which is its output matrix, too
        ("llama", "output_norm.weight"),
        ("mixtral", "blk.0.ffn_gate_exps.weight"),
        ("mixtral", "blk.0.ffn_gate_inp.weight"),
        ("qwen2moe", "blk.0.ffn_up_shexp.weight"),
    ],
)
def test_a_tensor_that_adapters_do_not_reach_is_named(
    tiny_model_path: TinyModelPath, tmp_path: Path, family: str, tensor: str
) -> None:
    spec = replace(FAMILY_MODELS[family], weight_type="F32")
    shapes = dict(matrices_and_norms(spec))
    n_rows, n_cols = shapes[tensor][-2:]
    pair = [
        {**_zeros(f"{tensor}.lora_a", 4, n_cols), "type_name": "F32"},
        {**_zeros(f"{tensor}.lora_b", n_rows, 4), "type_name": "F32"},
    ]
    base = adapter_tensors(spec, TinyAdapter())[0]
    file = write(
        tmp_path / "bad.gguf",
        spec,
        TinyAdapter(),
        tensors=[replace(base, **half) for half in pair],  # type: ignore[arg-type]
    )
    assert_refused(
        tiny_model_path(spec), file, f"tensor '{tensor}.lora_a': adapters of the model's '{tensor}'"
    )


def matrices_and_norms(spec: TinySpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from matrices(spec)
    yield "output_norm.weight", (1, spec.dim)


def test_a_run_names_an_adapter_that_the_engine_can_take(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    spec = TinySpec()
    path = tiny_model_path(spec)
    file = write_tiny_adapter(tmp_path / "adapter.gguf", spec)
    with (
        open_engine(path) as (model, engine),
        EngineModel(path) as other,
        Adapter(other, file) as foreign,
        Adapter(model, file) as own,
    ):
        for use, fault in (
            (AdapterUse(foreign), "run 0: the adapter was opened for another model"),
            (AdapterUse(own, float("inf")), "run 0: the adapter's scale is not finite"),
        ):
            with pytest.raises(EngineError, match=fault) as caught:
                feed(engine, use)
            assert caught.value.kind is ErrorKind.INVALID
        engine.reserve_adapters(3)
        with pytest.raises(EngineError, match="has rank 4, the engine has room for 3"):
            feed(engine, AdapterUse(own))
        engine.reserve_adapters(4)
        feed(engine, AdapterUse(own))
        with pytest.raises(EngineError, match="max_rank is 257, must be 0 to 256"):
            engine.reserve_adapters(257)
        engine.reserve_adapters(0)
        feed(engine, None)
        with pytest.raises(EngineError, match="room for 0"):
            feed(engine, AdapterUse(own))
        with pytest.raises(TypeError, match="str is no Adapter"):
            feed(engine, AdapterUse("adapter"))
        own.close()
        with pytest.raises(ValueError, match="this Adapter is closed"):
            feed(engine, AdapterUse(own))


def test_sizes_are_told(tiny_model_path: TinyModelPath, tmp_path: Path) -> None:
    spec = TinySpec(weight_type="Q4_0", dim=96, hidden_dim=160)
    file = write_tiny_adapter(tmp_path / "a.gguf", spec, TinyAdapter(rank=32, type_name="Q8_0"))
    with EngineModel(tiny_model_path(spec)) as model, Adapter(model, file) as adapter:
        assert adapter.info.max_rank == 32
        assert adapter.info.n_pairs == 7 * spec.n_layers
        assert adapter.info.alpha == 8.0
        n_floats = sum(32 * (rows + cols) for _, (rows, cols) in reached(spec, TinyAdapter()))
        assert adapter.info.bytes == 4 * n_floats
        room = adapter_room_bytes(model, 32, n_threads=2, n_ctx=64, n_batch=16)
        assert room == 4 * 16 * (4 * 32 + 160)
        assert adapter_room_bytes(model, 0, n_threads=2, n_ctx=64, n_batch=16) == 0
