"""Gemma 4 E2B on a board of 4 GB: of the table of layers' inputs only rows are read."""

from pathlib import Path

import pytest

from e2b import INPUTS, N_LAYERS, VOCABULARY, write_e2b
from llamad.door.capacity import Capacity
from llamad.engine.bindings import EngineModel, EngineParams
from llamad.memory.demand import demand_of
from llamad.memory.plan import plan_memory

GB, MOST_RESIDENT_BYTES = 1 << 30, 1_800_000_000
BOARD_BYTES = int(3.3 * GB)  # what a board of 4 GB has left
N_CTX = 4096
N_INPUTS = N_LAYERS * INPUTS


@pytest.mark.parametrize(
    ("weight_type", "embedding", "row_bytes"),
    [("Q4_0", "Q6_K", N_INPUTS // 256 * 210), ("Q4_K", "Q4_K", N_INPUTS // 256 * 144)],
)
def test_e2b_stays_in_memory_of_a_small_board_but_for_its_table(
    tmp_path: Path, weight_type: str, embedding: str, row_bytes: int
) -> None:
    path = write_e2b(tmp_path / "e2b.gguf", weight_type, embedding)
    with EngineModel(path) as model:
        info = model.info
        params = EngineParams(n_threads=4, n_ctx=N_CTX, n_batch=256, n_logits=8, kv_type="f16")
        demand = demand_of(model, {}, params, Capacity())
    table = VOCABULARY * row_bytes
    assert info.file_bytes > 2 * GB
    assert table > GB
    assert info.streamed_bytes < info.file_bytes - table + 2 * row_bytes
    assert info.streamed_bytes + table - row_bytes == info.weight_bytes
    # 12 local layers with 256 and 3 global ones with 512 values of a key and as many of a value
    assert info.kv_bytes_per_token_f16 == (12 * 256 + 3 * 512) * 2 * 2

    plan = plan_memory(demand, budget_bytes=BOARD_BYTES, kv_tokens=0, n_ctx=N_CTX, n_sequences=2)
    assert plan.model_fits
    assert plan.streamed_bytes == 0
    assert plan.resident_bytes <= MOST_RESIDENT_BYTES
    assert plan.resident_bytes + plan.on_demand_bytes == info.file_bytes
    assert plan.on_demand_bytes >= table
    assert plan.planned_bytes <= BOARD_BYTES
