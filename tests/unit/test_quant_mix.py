"""The mixes: which tensor gets which type, against llama.cpp's published sizes and its rules."""

import math

import pytest

from llamad.engine.bindings import TENSOR_TYPES, row_bytes
from llamad.gguf.value import MetadataValue
from llamad_tools.quantize.mixes import (
    MIXES,
    READ_ONLY,
    MixedModel,
    describe_model,
    find_mix,
    is_quantizable,
    refusal,
    tensor_type,
)

LAYERS = 32
SEVEN_B = MixedModel(n_layers=LAYERS)
DOWN = (11008, 4096)
VALUES = (4096, 4096)

# Gigabytes of Llama-2-7B's GGUF files as llama.cpp wrote them (TheBloke/Llama-2-7B-GGUF, 2023).
PUBLISHED_GB = {
    "Q3_K_S": 2.95, "Q3_K_M": 3.30, "Q3_K_L": 3.60, "Q4_0": 3.83, "Q4_K_S": 3.86, "Q4_K_M": 4.08,
    "Q5_0": 4.65, "Q5_K_S": 4.65, "Q5_K_M": 4.78, "Q6_K": 5.53, "Q8_0": 7.16,
}  # fmt: skip


def llama_7b() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (4096, 32000),
        "output.weight": (4096, 32000),
        "output_norm.weight": (4096,),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}.weight"] = VALUES
        for name in ("ffn_gate", "ffn_up"):
            shapes[f"blk.{layer}.{name}.weight"] = (4096, 11008)
        shapes[f"blk.{layer}.ffn_down.weight"] = DOWN
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = (4096,)
    return shapes


def chosen(mix: str, name: str, shape: tuple[int, ...], model: MixedModel = SEVEN_B) -> str:
    return tensor_type(MIXES[mix], name, shape, model)


def layers_of(mix: str, role: str, type_name: str, model: MixedModel = SEVEN_B) -> list[int]:
    shape = DOWN if role == "ffn_down" else VALUES
    names = [f"blk.{layer}.{role}.weight" for layer in range(model.n_layers)]
    return [i for i, name in enumerate(names) if chosen(mix, name, shape, model) == type_name]


@pytest.mark.parametrize("mix", PUBLISHED_GB)
def test_a_7b_has_the_published_size(mix: str) -> None:
    total = 0
    for name, shape in llama_7b().items():
        type_name = chosen(mix, name, shape) if is_quantizable(name, shape) else "F32"
        total += row_bytes(type_name, shape[0]) * math.prod(shape[1:])
    assert total / 1e9 == pytest.approx(PUBLISHED_GB[mix], rel=0.005)


def test_better_layers_are_the_outer_eighths_and_every_third_between() -> None:
    expected = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for mix in ("Q4_K_M", "Q5_K_M"):
        assert layers_of(mix, "ffn_down", "Q6_K") == expected
        assert layers_of(mix, "attn_v", "Q6_K") == expected
        assert layers_of(mix, "attn_q", "Q6_K") == []


def test_the_first_layers_of_the_smaller_mixes_are_better() -> None:
    assert layers_of("Q4_K_S", "ffn_down", "Q5_K") == [0, 1, 2, 3]
    assert layers_of("Q4_K_S", "attn_v", "Q5_K") == [0, 1, 2, 3]
    assert layers_of("Q3_K_M", "ffn_down", "Q5_K") == [0, 1]
    assert layers_of("Q3_K_M", "ffn_down", "Q4_K") == list(range(2, LAYERS))
    assert layers_of("Q3_K_M", "attn_v", "Q5_K") == [0, 1]
    assert layers_of("Q2_K", "attn_v", "Q3_K") == list(range(LAYERS))
    assert layers_of("IQ4_XS", "ffn_down", "Q5_K") == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("mix", "expected"),
    [("Q2_K", "Q3_K"), ("Q3_K_M", "Q4_K"), ("Q3_K_L", "Q5_K"), ("Q6_K", "Q6_K")],
)
def test_attention_output_by_mix(mix: str, expected: str) -> None:
    assert chosen(mix, "blk.9.attn_output.weight", VALUES) == expected


@pytest.mark.parametrize("mix", ["Q2_K", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_M"])
def test_fused_queries_keys_and_values_have_the_types_of_values(mix: str) -> None:
    for layer in range(LAYERS):
        fused = chosen(mix, f"blk.{layer}.attn_qkv.weight", VALUES)
        assert fused == chosen(mix, f"blk.{layer}.attn_v.weight", VALUES)


def test_layers_with_values_are_numbered_where_others_have_none() -> None:
    names = {f"blk.{layer}.attn_v.weight" for layer in (2, 5, 8, 9)}
    metadata: dict[str, MetadataValue] = {"general.architecture": "lfm2", "lfm2.block_count": 10}
    model = describe_model(metadata, names, has_importance=False)
    assert model.value_layers == (2, 5, 8, 9)
    shape = VALUES
    types = [tensor_type(MIXES["Q3_K_M"], name, shape, model) for name in sorted(names)]
    assert types == ["Q5_K", "Q5_K", "Q4_K", "Q4_K"]


def test_gemma_4s_table_of_layers_is_an_embedding_and_its_projection_is_kept() -> None:
    tied = MixedModel(n_layers=LAYERS, tied_output=True)
    assert chosen("Q4_0", "per_layer_token_embd.weight", VALUES, tied) == "Q6_K"
    assert chosen("Q4_0", "per_layer_token_embd.weight", VALUES) == "Q4_0"
    assert not is_quantizable("per_layer_model_proj.weight", VALUES)


def test_grouped_queries_pay_for_better_values() -> None:
    grouped = MixedModel(n_layers=LAYERS, gqa=4)
    assert set(layers_of("Q2_K", "attn_v", "Q4_K", grouped)) == set(range(LAYERS))
    assert set(layers_of("IQ4_XS", "attn_v", "Q5_K", grouped)) == set(range(LAYERS))
    seventy = MixedModel(n_layers=80, gqa=8)
    assert layers_of("Q3_K_S", "attn_v", "Q5_K", seventy) == list(range(80))
    assert layers_of("Q3_K_S", "attn_v", "Q5_K", MixedModel(n_layers=80)) == []


@pytest.mark.parametrize("name", ["ffn_down_exps", "ffn_down_shexp"])
@pytest.mark.parametrize("mix", ["Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "IQ4_XS", "Q6_K"])
def test_down_matrices_of_experts_are_as_others(mix: str, name: str) -> None:
    mixture = MixedModel(n_layers=LAYERS, n_experts=128)
    for layer in range(LAYERS):
        dense = chosen(mix, f"blk.{layer}.ffn_down.weight", VALUES)
        assert chosen(mix, f"blk.{layer}.{name}.weight", (*VALUES, 128), mixture) == dense


def test_eight_experts_pay_for_better_attention() -> None:
    mixtral = MixedModel(n_layers=LAYERS, gqa=4, n_experts=8)
    for name in ("attn_v", "attn_k"):
        assert layers_of("Q4_K_M", name, "Q8_0", mixtral) == list(range(LAYERS))
    assert layers_of("Q2_K", "attn_output", "Q5_K", mixtral) == list(range(LAYERS))
    assert layers_of("Q5_K_M", "attn_output", "Q5_K", mixtral) == list(range(LAYERS))
    assert layers_of("Q6_K", "attn_output", "Q6_K", mixtral) == list(range(LAYERS))


def test_importance_moves_the_guards() -> None:
    informed = MixedModel(n_layers=LAYERS, has_importance=True)
    assert layers_of("Q4_0", "ffn_down", "Q4_1", informed) == [0, 1, 2, 3]
    assert layers_of("Q5_0", "ffn_down", "Q5_1", informed) == [0, 1, 2, 3]
    assert layers_of("IQ4_NL", "ffn_down", "Q5_K", informed) == []
    assert layers_of("Q4_0", "ffn_down", "Q4_1") == []


@pytest.mark.parametrize("mix", ["Q2_K", "Q3_K_S", "Q4_0", "Q4_K_M", "IQ4_NL", "Q5_1"])
def test_the_output_matrix_is_q6_k_wherever_it_lies(mix: str) -> None:
    assert chosen(mix, "output.weight", (4096, 32000)) == "Q6_K"
    tied = MixedModel(n_layers=LAYERS, tied_output=True)
    assert chosen(mix, "token_embd.weight", (4096, 32000), tied) == "Q6_K"
    assert chosen(mix, "token_embd.weight", (4096, 32000)) == MIXES[mix].base
    assert chosen(mix, "output.weight", (576, 49152)) == "Q8_0"
    assert chosen("Q8_0", "output.weight", (4096, 32000)) == "Q8_0"


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ("Q2_K", "Q4_0"), ("Q3_K_S", "Q4_0"), ("Q4_K_S", "Q5_0"), ("Q5_K_S", "Q5_1"),
        ("Q6_K", "Q8_0"), ("IQ4_XS", "IQ4_NL"), ("Q4_0", "Q4_0"), ("Q8_0", "Q8_0"),
    ],
)  # fmt: skip
def test_rows_that_are_no_multiple_of_256_fall_back(mix: str, expected: str) -> None:
    assert chosen(mix, "blk.5.attn_q.weight", (576, 576)) == expected
    assert chosen(mix, "blk.5.attn_q.weight", (100, 576)) == "F16"


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("n_cols", [4096, 576, 100])
def test_every_choice_can_hold_the_row(mix: str, n_cols: int) -> None:
    for role in ("attn_q", "attn_v", "attn_output", "ffn_down", "ffn_gate"):
        for pure in (False, True):
            type_name = tensor_type(
                MIXES[mix], f"blk.0.{role}.weight", (n_cols, 8), SEVEN_B, pure=pure
            )
            assert row_bytes(type_name, n_cols) > 0


@pytest.mark.parametrize("mix", ["Q4_K_M", "Q3_K_L", "Q2_K"])
def test_pure_is_one_type(mix: str) -> None:
    base = MIXES[mix].base
    for name, shape in llama_7b().items():
        if is_quantizable(name, shape):
            assert tensor_type(MIXES[mix], name, shape, SEVEN_B, pure=True) == base


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blk.0.attn_q.weight", (64, 64), True),
        ("token_embd.weight", (64, 300), True),
        ("blk.0.attn_q.bias", (64,), False),
        ("blk.0.attn_q.bias", (64, 2), False),
        ("blk.0.attn_norm.weight", (64,), False),
        ("blk.0.attn_q_norm.weight", (64, 2), False),
        ("rope_freqs.weight", (32,), False),
        ("blk.0.attn_q.weight", (64, 1), False),
        ("blk.0.ffn_gate_inp.weight", (64, 8), False),
        ("blk.0.shortconv.conv.weight", (3, 64), False),
        ("blk.0.ssm_conv1d.weight", (4, 64), False),
    ],
)
def test_only_matrices_are_quantized(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_quantizable(name, shape) is expected


def test_names_are_found_in_any_case_and_by_llama_cpps_short_forms() -> None:
    for name, mix in MIXES.items():
        assert find_mix(name) is mix
        assert find_mix(name.lower()) is mix
        assert mix.base in TENSOR_TYPES
    assert find_mix("q4_k") is MIXES["Q4_K_M"]
    assert find_mix("Q9_K") is None
    assert len({mix.file_type for mix in MIXES.values()}) == len(MIXES)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("IQ2_XXS", "Q2_K"), ("iq3_m", "Q3_K_S"), ("MXFP4", "Q4_K_M"), ("Q1_0", "Q2_K")],
)
def test_what_can_be_served_and_not_written_is_refused_with_what_to_write(
    name: str, instead: str
) -> None:
    assert find_mix(name) is None
    assert instead in MIXES
    assert refusal(name) == f"{name} can be served, not written: {instead} is the nearest that can"


def test_every_type_is_written_or_refused_with_what_to_write() -> None:
    written = {mix.base for mix in MIXES.values()}
    assert set(TENSOR_TYPES) == written | {name for name in READ_ONLY if name in TENSOR_TYPES}


def test_a_name_of_nothing_is_refused_with_all_names() -> None:
    assert refusal("Q9_Z", "auto").startswith("Q9_Z is none of F32, F16, Q4_0")
    assert refusal("Q9_Z", "auto").endswith(", auto")
