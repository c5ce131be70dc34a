"""A key or a tensor of one family that cannot be is refused by its name."""

from pathlib import Path

import pytest

from llamad.engine.bindings import EngineError, EngineModel
from tiny_gguf import Metadata, TinySpec, write_tiny_model

PATTERN = "gemma3.attention.sliding_window_pattern"
NAN, INF, HUGE = float("nan"), float("inf"), 2**31
BAD_KEYS: list[tuple[str, Metadata]] = [
    ("gemma3.attention.sliding_window", 2.5),
    ("gemma3.attention.sliding_window", 2**31),
    (PATTERN, 0),
    (PATTERN, 2000),
    (PATTERN, "six"),
    (PATTERN, [1, 0, 1]),
    (PATTERN, ["a", "b"]),
    ("gemma3.rope.freq_base_swa", 0.5),
    ("gemma3.final_logit_softcapping", float("nan")),
    ("gemma3.hidden_activation", "silu"),
    ("gemma3.attn_logit_softcapping", 50.0),
]


# Values that no key of a kind may have, by family.
NO_SCALE: tuple[Metadata, ...] = (0.0, -1.0, NAN, INF, "two", [1.0, 2.0], True)
NO_FACTOR: tuple[Metadata, ...] = (-1.0, NAN, INF, "two", [1.0])
NO_COUNT: tuple[Metadata, ...] = (2.5, HUGE, "two", [1, 2])
BAD_VALUES: dict[str, tuple[Metadata, ...]] = {
    "granite.embedding_scale": NO_SCALE,
    "granite.residual_scale": NO_SCALE,
    "granite.attention.scale": NO_SCALE,
    "granite.logit_scale": NO_SCALE,
    "granite.rope.scaling.finetuned": (1.0, "no", [True]),
    "minicpm.embedding_scale": NO_SCALE,
    "mistral3.attention.temperature_scale": NO_FACTOR,
    "mistral3.rope.scaling.yarn_log_multiplier": NO_FACTOR,
    "mistral3.rope.scaling.original_context_length": (0, *NO_COUNT),
    "exaone4.attention.sliding_window": NO_COUNT,
    "exaone4.attention.sliding_window_pattern": (0, "LLLG", [1, 0, 1]),
    "olmo2.attention.sliding_window": NO_COUNT,
    "olmo2.rope.freq_base_swa": (0.5, NAN, "big"),
}
REQUIRED_KEYS = (
    "granite.logit_scale",
    "minicpm.embedding_scale",
    "minicpm.residual_scale",
    "minicpm.logit_scale",
)


def refusal(folder: Path, spec: TinySpec) -> str:
    with pytest.raises(EngineError) as caught:
        EngineModel(write_tiny_model(folder / "model.gguf", spec))
    return str(caught.value)


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, key: str) -> None:
    family = key.split(".")[0]
    for value in BAD_VALUES[key]:
        spec = TinySpec(architecture=family, window=8, metadata={key: value})
        assert f"'{key}'" in refusal(tmp_path, spec), value


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_a_key_that_a_family_needs_is_named(tmp_path: Path, key: str) -> None:
    family = key.split(".")[0]
    path = write_tiny_model(tmp_path / "model.gguf", TinySpec(architecture=family))
    path.write_bytes(path.read_bytes().replace(key.encode(), key[:-1].encode() + b"x"))
    with pytest.raises(EngineError, match=f"'{key}' is missing"):
        EngineModel(path)


@pytest.mark.parametrize(("key", "value"), BAD_KEYS)
def test_a_hostile_key_is_named(tmp_path: Path, key: str, value: Metadata) -> None:
    spec = TinySpec(architecture="gemma3", window=8, metadata={key: value})
    with pytest.raises(EngineError, match=f"'{key}'"):
        EngineModel(write_tiny_model(tmp_path / "model.gguf", spec))


@pytest.mark.parametrize("name", ["post_attention_norm", "post_ffw_norm", "attn_q_norm"])
def test_a_norm_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = write_tiny_model(tmp_path / "model.gguf", TinySpec(architecture="gemma3"))
    tensor = f"blk.1.{name}.weight".encode()
    path.write_bytes(path.read_bytes().replace(tensor, tensor.replace(b"norm", b"gone")))
    with pytest.raises(EngineError, match=f"'blk.1.{name}.weight' is missing"):
        EngineModel(path)
