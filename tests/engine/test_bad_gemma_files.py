"""A key or a norm of a family with windows that cannot be is refused by its name."""

from pathlib import Path

import pytest

from llamad.engine.bindings import EngineError, EngineModel
from tiny_gguf import Metadata, TinySpec, write_tiny_model

PATTERN = "gemma3.attention.sliding_window_pattern"
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
