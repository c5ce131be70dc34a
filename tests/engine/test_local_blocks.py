"""Blocks of layers with a window: what lies before it may be given back, and no bit changes.

A local block that is given back is filled with NaN, and the next tokens that need one get it: what
reads it nevertheless changes the logits.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from engine.feeding import Logits, bits, feed, random_tokens
from family_models import FAMILY_MODELS
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run, engine_bytes
from llamad.engine.run import NOT_HELD, blocks_seen
from llamad.engine.single_sequence import (
    BLOCK_TOKENS,
    SingleSequence,
    blocks_for,
    local_blocks_for,
)
from tiny_gguf import TinyModelPath, TinySpec

N_TOKENS = 200
WINDOW = 40  # tokens: a block and a part
SPECS = {
    "gemma2": TinySpec(architecture="gemma2", window=WINDOW, weight_type="Q4_0"),
    "gemma3": TinySpec(architecture="gemma3", window=WINDOW, n_layers=7),
    "every layer is local": TinySpec(architecture="phi3", window=WINDOW),
    "a window of one token": TinySpec(architecture="gemma3", window=1, n_layers=7),
    "a window of whole blocks": TinySpec(architecture="gemma3", window=64, n_layers=7),
    "keys of another layer": FAMILY_MODELS["gemma4"],
}


@contextmanager
def open_engine(
    tiny_model_path: TinyModelPath, spec: TinySpec, *, n_local: int = 0, kv_type: str = "f16"
) -> Iterator[Engine]:
    with (
        EngineModel(tiny_model_path(spec)) as model,
        Engine(
            model,
            n_threads=2,
            n_ctx=256,
            n_local_blocks=n_local,
            n_batch=64,
            n_logits=64,
            kv_type=kv_type,
        ) as engine,
    ):
        yield engine


class Windowed:
    """A sequence that has local blocks from its window on only; the others are NaN."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._free = list(range(engine.n_local_blocks))
        self.local: list[int] = []  # by block
        self.length = 0
        for block in self._free:
            self._spoil(block)

    def _spoil(self, block: int) -> None:
        size = len(self._engine.block_read(block, local=True))
        self._engine.block_write(block, b"\xff" * size, local=True)

    def feed(self, tokens: Sequence[int]) -> list[Logits]:
        end = self.length + len(tokens)
        while len(self.local) < blocks_for(end):
            self.local.append(self._free.pop(0))
        blocks = range(blocks_for(end))
        run = Run(tokens, self.length, blocks, len(tokens), local_blocks=self.local)
        self._engine.forward([run])
        self.length = end
        for index in range(max(0, end - self._engine.kv_window + 1) // BLOCK_TOKENS):
            if self.local[index] != NOT_HELD:
                self._spoil(self.local[index])
                self._free.append(self.local[index])
                self.local[index] = NOT_HELD
        return [np.array(self._engine.logits(k)) for k in range(len(tokens))]


def feed_windowed(engine: Engine, tokens: Sequence[int], chunk: int) -> Logits:
    sequence = Windowed(engine)
    parts = [tokens[i : i + chunk] for i in range(0, len(tokens), chunk)]
    return np.stack([row for part in parts for row in sequence.feed(part)])


@pytest.mark.parametrize("chunk", [1, 7, 32, 64])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", SPECS)
def test_logits_are_those_of_an_engine_that_keeps_all(
    tiny_model_path: TinyModelPath, name: str, kv_type: str, chunk: int
) -> None:
    tokens = random_tokens(3, N_TOKENS)
    with open_engine(tiny_model_path, SPECS[name], kv_type=kv_type) as engine:
        window = engine.kv_window
        assert engine.n_local_blocks == engine.n_blocks
        expected = feed(engine, tokens, chunk=64)
    n_local = blocks_seen(window, chunk, BLOCK_TOKENS)
    assert n_local < blocks_for(N_TOKENS)
    with open_engine(tiny_model_path, SPECS[name], n_local=n_local, kv_type=kv_type) as engine:
        assert bits(feed_windowed(engine, tokens, chunk)) == bits(expected)


def test_a_local_block_that_a_row_sees_must_be_there(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(3, 64)
    with open_engine(tiny_model_path, SPECS["gemma3"], n_local=4) as engine:
        engine.forward([Run(tokens, 0, range(2), local_blocks=[3, 1])])
        engine.forward([Run([1], 71, range(3), local_blocks=[NOT_HELD, 1, 2])])  # sees 32 and on
        with pytest.raises(EngineError, match="local block 0 is 4294967295, must be below 4"):
            engine.forward([Run([1], 70, range(3), local_blocks=[NOT_HELD, 1, 2])])
        with pytest.raises(EngineError, match="local block 2 is 4, must be below 4"):
            engine.forward([Run([1], 70, range(3), local_blocks=[3, 1, 4])])


def test_a_local_block_that_is_written_belongs_to_one_run(tiny_model_path: TinyModelPath) -> None:
    with open_engine(tiny_model_path, SPECS["gemma3"], n_local=4) as engine:
        first = Run([1], 0, [0], local_blocks=[2])
        with pytest.raises(EngineError, match="run 1: local block 2 is written and named twice"):
            engine.forward([first, Run([1], 0, [1], local_blocks=[2])])
        engine.forward([first, Run([1], 0, [1], local_blocks=[3])])


def test_a_run_names_as_many_local_blocks_as_blocks(tiny_model_path: TinyModelPath) -> None:
    with (
        open_engine(tiny_model_path, SPECS["gemma3"]) as engine,
        pytest.raises(ValueError, match="1 local blocks beside 2 blocks"),
    ):
        engine.forward([Run([1], 0, [0, 1], local_blocks=[2])])


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_the_two_pools_have_the_bytes_of_their_layers(
    tiny_model_path: TinyModelPath, kv_type: str
) -> None:
    with EngineModel(tiny_model_path(SPECS["gemma3"])) as model:  # layer 5 of 0..6 sees all
        sizes = engine_bytes(
            model, n_threads=1, n_ctx=256, n_blocks=8, n_local_blocks=3, kv_type=kv_type
        )
        per_token = getattr(model.info, f"kv_bytes_per_token_{kv_type}")
    both = BLOCK_TOKENS * per_token
    assert sizes.kv_block_bytes == both // 7
    assert sizes.kv_local_block_bytes == both // 7 * 6
    assert sizes.kv_bytes == 8 * sizes.kv_block_bytes + 3 * sizes.kv_local_block_bytes
    assert (sizes.kv_window, sizes.n_local_blocks) == (WINDOW, 3)


RESIDENT = """
import sys
from llamad.engine.bindings import Engine, EngineModel, engine_bytes
from llamad.engine.single_sequence import SingleSequence, local_blocks_for

def resident():
    with open("/proc/self/smaps_rollup") as file:
        rows = dict(line.split(None, 1) for line in file if line[0] != " " and ":" in line[:20])
    return int(rows["Anonymous:"].split()[0]) * 1024

model = EngineModel(sys.argv[1])
n_local = local_blocks_for(40, 64, 2048) if sys.argv[2] == "windows" else 0
params = dict(n_threads=1, n_ctx=2048, n_batch=64, n_local_blocks=n_local)
with Engine(model, **params) as engine:
    sequence = SingleSequence(engine)
    before = resident()
    for _ in range(32):
        sequence.feed([1] * 64)
    print(resident() - before, engine.info.kv_bytes)
"""


def test_the_kernel_counts_what_the_plan_says(tiny_model_path: TinyModelPath) -> None:
    spec = TinySpec(
        architecture="gemma3", window=WINDOW, n_layers=6, head_dim=256, n_ctx_train=2048
    )
    taken = {}
    for name in ("windows", "all"):
        command = [sys.executable, "-c", RESIDENT, str(tiny_model_path(spec)), name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        taken[name], planned = map(int, done.stdout.split())
        assert 0.97 * planned < taken[name] < 1.03 * planned + (1 << 20)
    assert taken["windows"] < 0.27 * taken["all"]  # 6 of 64 blocks in 5 layers, and all in one


def test_a_sequence_alone_goes_round_in_its_local_blocks(tiny_model_path: TinyModelPath) -> None:
    tokens = random_tokens(3, N_TOKENS)
    with open_engine(tiny_model_path, SPECS["gemma3"]) as engine:
        expected = feed(engine, tokens, chunk=64)
    n_local = local_blocks_for(WINDOW, 64, 256)
    with open_engine(tiny_model_path, SPECS["gemma3"], n_local=n_local) as engine:
        sequence = SingleSequence(engine)
        assert bits(feed(engine, tokens, chunk=64, sequence=sequence)) == bits(expected)
        with pytest.raises(ValueError, match="what 100 of 200 tokens see is gone"):
            sequence.truncate(100)
        sequence.truncate(0)
        assert bits(feed(engine, tokens, chunk=7, sequence=sequence)) == bits(expected)


def test_a_model_without_windows_has_no_local_blocks(tiny_model_path: TinyModelPath) -> None:
    with open_engine(tiny_model_path, TinySpec(), n_local=3) as engine:
        assert (engine.n_local_blocks, engine.kv_window) == (0, 0)
        assert engine.info.kv_bytes == engine.n_blocks * engine.info.kv_block_bytes
