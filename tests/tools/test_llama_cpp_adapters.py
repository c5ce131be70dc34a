"""llama.cpp loads the same adapters and computes the same: both are near exact arithmetic.

Needs the PyPI package ``xllamacpp``, an optional peer.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import llama_cpp
from bench.family_peer import distance, tokens_of_prompt
from engine.test_adapters import feed, open_engine
from family_models import FAMILY_MODELS
from llama_cpp import LlamaCpp
from llamad.engine.bindings import Adapter, AdapterUse
from reference import forward, load
from tiny_adapter import TinyAdapter, merged, write_tiny_adapter
from tiny_gguf import TinyModelPath

if not llama_cpp.is_available():
    pytest.skip("no peer xllamacpp: make peer installs it", allow_module_level=True)

# As in test_llama_cpp_families: a wrong scale or side shows 0.1 to 1.
OURS, THEIRS = 0.005, 0.02
SCALE = 0.75


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "phi3"])
def test_logits_through_an_adapter(
    tiny_model_path: TinyModelPath, tmp_path: Path, family: str, type_name: str
) -> None:
    spec = replace(FAMILY_MODELS[family], weight_type="F32", metadata={"general.name": "tiny"})
    adapter = TinyAdapter(rank=32, alpha=16.0, type_name=type_name)
    path = tiny_model_path(spec)
    file = write_tiny_adapter(tmp_path / "adapter.gguf", spec, adapter)
    tokens = tokens_of_prompt()
    truth = forward(merged(load(path), spec, adapter, SCALE), tokens, n_ctx=llama_cpp.N_CTX)
    with open_engine(path) as (model, engine), Adapter(model, file) as opened:
        ours = feed(engine, AdapterUse(opened, SCALE), tokens=tokens)
    with LlamaCpp(path, n_threads=1) as peer:
        plain = distance(peer.logits(tokens), truth)
        peer.use_adapter(file, SCALE)
        theirs = distance(peer.logits(tokens), truth)
    assert distance(ours, truth).largest <= OURS
    assert theirs.largest <= THEIRS < plain.largest
    assert np.isfinite(ours).all()
