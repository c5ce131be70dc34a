"""Every entry of the bindings, called with closed handles and absurd arguments, in a child process.

Whatever a call is given, it ends in a value or in a Python exception; the process lives. A crash
would show as a signal, and the last line the child wrote as the call.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_gguf import TinyModelPath, TinySpec

CALLS = """
import sys
from itertools import product
from llamad.engine import bindings as b
from llamad.sampling.parameters import GREEDY, Sampling

path, vocab = sys.argv[1], int(sys.argv[2])
ABSURD = [None, -1, 0, 1, 7, 1 << 31, 1 << 40, 1 << 70, 1.5, "x", b"", [], {}, object()]
refused = 0


def attempt(name, function, *arguments):
    global refused
    print(name, [repr(a)[:60] for a in arguments], flush=True)
    try:
        function(*arguments)
    except Exception:
        refused += 1


def pairs(name, function):
    for arguments in product(ABSURD, repeat=2):
        attempt(name, function, *arguments)


def each(name, function):
    for argument in ABSURD:
        attempt(name, function, argument)


def sampler(n=vocab):
    return b.Sampler(GREEDY, vocab_size=n, n_ctx=8, seed=1)


def walk_engine(name, engine, drawing, other):
    for attribute in ("info", "progress"):
        attempt(name, getattr, engine, attribute)
    pairs(name + ".block_write", engine.block_write)
    pairs(name + ".log_probability", engine.log_probability)
    pairs(name + ".likeliest", lambda token, n: engine.token_probabilities(0, token, n))
    each(name + ".token_probabilities", lambda k: engine.token_probabilities(k, 0, 1))
    for method in ("logits", "block_read", "forward", "collect"):
        each(name + "." + method, getattr(engine, method))
    for tokens, position, blocks, n_out in product(
        [None, [], [1], [-1], [vocab], [1 << 40], [1.5], "ab"],
        [None, -1, 0, 15, 16, 1 << 31, 1 << 33, 0.5],
        [None, [], [0], [1 << 20], [-1], [1 << 33], ["x"]],
        [None, -1, 0, 1, 2, 1 << 33],
    ):
        attempt(name + ".forward", engine.forward, [b.Run(tokens, position, blocks, n_out)])
    for k in ABSURD:
        attempt(name + ".sample", drawing.sample, engine, k)
        attempt(name + ".sample", other.sample, engine, k)
    attempt(name, engine.cancel)
    attempt(name, engine.cancel_clear)


each("GgufFile", b.GgufFile)
each("EngineModel", b.EngineModel)
each("read_metadata", b.read_metadata)
attempt("EngineModel", b.EngineModel, "a\\0b")
each("kernel_set", b.kernel_set)
each("block_size", b.block_size)
pairs("row_bytes", lambda n, cols: b.row_bytes(n, cols))
for type_name in b.TENSOR_TYPES:
    each("row_bytes", lambda cols: b.row_bytes(type_name, cols))
    for n in [-1, 0, 31, 32, 1 << 70, None]:
        for data in [b"", b"x", b"x" * 18, None, "x"]:
            attempt("dequantize", b.dequantize, type_name, data, n)
            for n_threads in [-1, 0, 1, 65, 1 << 40]:
                attempt(
                    "requantize",
                    lambda: b.requantize("F32", data, type_name, bytearray(18), n,
                                         importance=data, n_threads=n_threads),
                )

file, model = b.GgufFile(path), b.EngineModel(path)
file.close()
for name in ("version", "file_bytes"):
    attempt("closed file", getattr, file, name)
for name in ("metadata", "raw_metadata", "tensors"):
    attempt("closed file", getattr(file, name))
each("populate", model.populate)
each("use_huge_pages", model.use_huge_pages)
stays = [True] * len(model.extents())
part = [extent.role is b.Role.VECTOR for extent in model.extents()]
pairs("set_residency", lambda ring, n: model.set_residency(stays, ring, lock_bytes=n))
pairs("set_residency", lambda ring, n: model.set_residency(part, ring, lock_bytes=n))
for resident in [None, [], [True], [False] * len(stays), [2] * len(stays), ["x"], stays * 2]:
    attempt("set_residency", model.set_residency, resident, 1 << 20)
model.set_residency(stays)
for n in [None, -1, 0, 65, 1 << 40, "x"]:
    attempt("read_bandwidth", model.read_bandwidth, n)
for field in ("n_threads", "n_ctx", "n_blocks", "n_batch", "n_logits", "kv_type", "cpu"):
    for value in ABSURD:
        params = {"n_threads": 1, "n_ctx": 16, "n_batch": 4, field: value}
        attempt("engine_bytes", lambda: b.engine_bytes(model, **params))
        if value not in (1 << 40, 1 << 31):
            attempt("Engine", lambda: b.Engine(model, **params).close())
for absurd in ABSURD:
    attempt("Engine", lambda: b.Engine(absurd, n_threads=1, n_ctx=8))
    attempt("Importance", lambda: b.Importance(absurd, 1))
    attempt("Importance", lambda: b.Importance(model, absurd))
    attempt("Sampler", lambda: b.Sampler(absurd, vocab_size=4, n_ctx=4, seed=0))
    attempt("Sampler", lambda: b.Sampler(GREEDY, vocab_size=4, n_ctx=4, seed=0, n_draws=absurd))
    attempt("Sampler", lambda: b.Sampler(Sampling(logit_bias={absurd: 1.0}), vocab_size=4,
                                         n_ctx=4, seed=0))

engine = b.Engine(model, n_threads=1, n_ctx=16, n_batch=4, n_logits=2)
drawing, other, closed = sampler(), sampler(vocab + 1), sampler()
closed.close()
each("accept", drawing.accept)
each("accept", closed.accept)
each("sample", lambda engine: drawing.sample(engine, 0))
walk_engine("engine", engine, drawing, other)
engine.forward([b.Run([1, 2], 0, [0], 1)])
attempt("closed sampler", closed.sample, engine, 0)
walk_engine("engine", engine, drawing, other)
importance = b.Importance(model, 1)
pairs("Importance.read", importance.read)
engine.collect(importance)
importance.close()
attempt("closed importance", importance.read, 0, 0)
model.close()
engine.forward([b.Run([1, 2], 0, [0], 1)])  # model and sums live as long as the engine
view = engine.logits(0)
for name in ("metadata", "populate", "use_huge_pages"):
    attempt("closed model", getattr(model, name))
for name in ("extents", "residency"):
    attempt("closed model", getattr(model, name))
attempt("closed model", model.set_residency, stays)
attempt("closed model", model.read_bandwidth, 1)
attempt("closed model", lambda: b.Engine(model, n_threads=1, n_ctx=8))
attempt("closed model", lambda: b.engine_bytes(model, n_threads=1, n_ctx=8))
attempt("closed model", lambda: b.Importance(model, 1))
engine.close()
engine.close()
assert len(list(view)) == vocab
walk_engine("closed engine", engine, drawing, other)
print("refused", refused)
"""


def test_no_call_of_the_bindings_ends_the_process(
    tiny_model_path: TinyModelPath, tmp_path: Path
) -> None:
    spec = TinySpec()
    with (tmp_path / "calls").open("w+") as calls:
        done = subprocess.run(
            [sys.executable, "-c", CALLS, str(tiny_model_path(spec)), str(spec.vocab_size)],
            stdout=calls,
            stderr=subprocess.PIPE,
            text=True,
        )
        calls.seek(0)
        last = calls.read().splitlines()[-1]
    if done.returncode < 0:
        pytest.fail(f"{signal.Signals(-done.returncode).name} in {last}")
    assert done.returncode == 0, done.stderr
    assert int(last.split()[1]) > 1000


SIZES = """
import sys
from llamad.engine.bindings import Engine, EngineModel, engine_bytes


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096


model = EngineModel(sys.argv[1])
for kv_type in ("f16", "q8_0", "q4_0"):
    params = dict(n_threads=2, n_ctx=100, n_batch=4096, n_logits=3, kv_type=kv_type)
    planned = engine_bytes(model, **params)
    before = resident()
    with Engine(model, **params) as engine:
        assert resident() - before > 0.95 * planned.scratch_bytes, "scratch was not touched"
        info = engine.info
        assert (info.kv_bytes, info.scratch_bytes) == (planned.kv_bytes, planned.scratch_bytes)
        assert planned.n_blocks == info.kv_blocks_total == 4
        assert planned.kv_bytes == planned.n_blocks * planned.kv_block_bytes
        assert len(engine.block_read(0)) == planned.kv_block_bytes
"""


def test_an_engine_takes_what_was_planned_when_it_is_created(
    tiny_model_path: TinyModelPath,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIZES, str(tiny_model_path(TinySpec()))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
