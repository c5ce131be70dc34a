"""The 4-bit KV cache: the engine rounds, rotates and rotates back as the numpy oracle does.

A key or value that lies within float noise of the middle of two levels may be rounded to the other
one, a step of 1/8 of the largest of its 32. So a sequence is short, and of several the median
counts: most meet no such element. A wrong nibble, scale, pair or rotation is wrong in all of them.
"""

from dataclasses import replace

import numpy as np
import pytest

from engine.feeding import feed, random_tokens
from engine.test_forward import FLOAT_NOISE, row_errors
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineModel
from reference import engine_rounding, forward, load
from reference.rounding import Rounding, hadamard, round_kv
from tiny_gguf import TinyModelPath, TinySpec

N_TOKENS, N_SEQUENCES = 5, 9
HEAD_SIZES = (6, 16, 64, 80, 96, 112, 128, 192, 256, 512)
KINDS = {
    "windows": TinySpec(architecture="gemma3", n_layers=7, window=3),
    "softcaps": TinySpec(architecture="gemma2", window=4),
    "keys of other layers, heads of two sizes": replace(
        FAMILY_MODELS["gemma4"], head_dim=32, local_head_dim=16
    ),
    "sinks": FAMILY_MODELS["gpt-oss"],
    "gated, with states": TinySpec(
        architecture="qwen35", n_layers=5, recurrent=(0, 1, 2, 4), conv_width=4, delta_dim=24
    ),
}
SPECS = {
    **{f"heads of {n}": TinySpec(head_dim=n, n_heads=4, n_kv_heads=2) for n in HEAD_SIZES},
    **KINDS,
}


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_oracle(tiny_model_path: TinyModelPath, name: str) -> None:
    path = tiny_model_path(SPECS[name])
    oracle = load(path)
    errors, unrotated = [], []
    with (
        EngineModel(path) as model,
        Engine(model, n_threads=2, n_ctx=32, n_batch=32, n_logits=32, kv_type="q4_0") as engine,
    ):
        for seed in range(N_SEQUENCES):
            tokens = random_tokens(seed, N_TOKENS)
            actual = feed(engine, tokens, chunk=N_TOKENS)
            expected = forward(oracle, tokens, engine_rounding("q4_0"))
            errors.append(row_errors(actual, expected).max())
            other = forward(oracle, tokens, Rounding(activations=True, kv_type="q4_0 unrotated"))
            unrotated.append(row_errors(actual, other).max())
    assert np.median(errors) <= FLOAT_NOISE
    assert min(unrotated) > 100 * FLOAT_NOISE  # so the comparison sees which rounding was made


@pytest.mark.parametrize("n", HEAD_SIZES)
def test_the_rotation_is_its_own_inverse_and_keeps_products(n: int) -> None:
    x, y = np.random.default_rng(n).normal(size=(2, 3, n))
    assert np.allclose(hadamard(hadamard(x)), x, atol=1e-12)
    assert np.allclose(np.sum(hadamard(x) * hadamard(y), axis=-1), np.sum(x * y, axis=-1))


def test_an_element_that_stands_out_costs_the_others_less() -> None:
    """What the rotation is for (arXiv 2404.00456): one scale serves 32 elements."""
    x = np.random.default_rng(1).normal(size=(100, 1, 64)).astype(np.float32)
    x[:, :, 5] *= 20
    plain, rotated = (
        float(np.mean((round_kv(x, kv_type) - x) ** 2)) for kv_type in ("q4_0 unrotated", "q4_0")
    )
    assert rotated < plain / 2
