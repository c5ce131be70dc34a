"""Every bad model file ends in an error that names the path, the thing and the limit.

No crash, no memory: the worst is tried in a process of its own, whose peak is measured.
"""

import math
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from engine.bad_gguf import BAD_FILES, GOOD_FILES, BadFile
from engine.gguf_bytes import (
    BOOL,
    DIM,
    F16,
    F32,
    FLOAT32,
    FLOAT64,
    HEAD_DIM,
    HIDDEN,
    INT32,
    INT64,
    MODEL_TENSORS,
    Q8_0,
    STRING,
    UINT16,
    UINT32,
    UINT64,
    VOCAB,
    TensorChange,
    array,
    model,
    scalar,
    strings,
)
from llamad.engine.bindings import Engine, EngineError, EngineModel, GgufFile, Run, Sampler
from llamad.sampling.parameters import GREEDY

MAX_RSS_BYTES = 256 << 20
TESTS = Path(__file__).resolve().parents[1]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def run_python(script: str, *arguments: Path) -> str:
    """Run a script that may crash in a process of its own; return what it printed."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([*sys.path, str(TESTS)]))
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- files that break the format --------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_file_that_breaks_the_format_is_refused(tmp_path: Path, bad: BadFile) -> None:
    path = write(tmp_path, bad.content)
    for opened in (GgufFile, EngineModel):
        with pytest.raises(EngineError) as caught:
            opened(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert bad.fault in str(caught.value)
        assert caught.value.reason in {"MODEL_CORRUPT", "MODEL_UNSUPPORTED"}


@pytest.mark.parametrize("name", GOOD_FILES)
def test_an_unusual_file_that_keeps_the_format_is_read(tmp_path: Path, name: str) -> None:
    with GgufFile(write(tmp_path, GOOD_FILES[name])) as file:
        assert file.file_bytes == len(GOOD_FILES[name])
        file.metadata()
        file.tensors()


def test_bytes_that_are_no_text_survive_in_values(tmp_path: Path) -> None:
    with GgufFile(write(tmp_path, GOOD_FILES["vocabulary"])) as file:
        assert file.metadata() == {"tokenizer.ggml.tokens": ["a", "\udcff", ""]}


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = model()
    path = write(tmp_path, content)
    with GgufFile(path) as file:
        header_bytes = min(tensor.file_offset for tensor in file.tensors())
    for n in [*range(len(content) - 1, header_bytes, -61), *range(header_bytes, -1, -1)]:
        os.truncate(path, n)
        with pytest.raises(EngineError) as caught:
            GgufFile(path)
        assert caught.value.reason == "MODEL_CORRUPT"
    assert "file is empty" in str(caught.value)


def test_bad_files_cost_no_memory(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from engine.bad_gguf import BAD_FILES
from llamad.engine.bindings import EngineError, EngineModel, GgufFile
path = Path(sys.argv[1]) / "bad.gguf"
for bad in BAD_FILES:
    path.write_bytes(bad.content)
    for opened in (GgufFile, EngineModel):
        try:
            opened(path)
        except EngineError:
            continue
        raise SystemExit(f"{bad.name} was accepted")
status = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss counts the parent's, too
print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
"""
    assert int(run_python(script, tmp_path)) < MAX_RSS_BYTES


# ---- paths that are no file --------------------------------------------------------------------


def refused(path: str | Path) -> EngineError:
    with pytest.raises(EngineError) as caught:
        EngineModel(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    expected = {
        fifo: "is a FIFO, must be a regular file",
        tmp_path: "is a directory, must be a regular file",
        Path("/dev/zero"): "is a character device, must be a regular file",
        tmp_path / "absent": "No such file or directory",
        loop: "Too many levels of symbolic links",
    }
    for path, fault in expected.items():
        error = refused(path)
        assert fault in str(error)
        assert error.reason == "MODEL_UNREADABLE"


# ---- files that fail while they are mapped -----------------------------------------------------

FORWARD_ON_A_CUT_FILE = """
import os, sys
from llamad.engine.bindings import Engine, EngineError, EngineModel, Run
model = EngineModel(sys.argv[1])
engine = Engine(model, n_threads=2, n_ctx=16)
engine.forward([Run([1, 2], 0, [0], 1)])
os.truncate(sys.argv[1], 0)
try:
    engine.forward([Run([3], 2, [0], 1)])
except EngineError as error:
    print(error.reason)
"""


def test_a_model_cut_under_the_engine_ends_the_forward_and_not_the_process(tmp_path: Path) -> None:
    path = write(tmp_path, model())
    assert run_python(FORWARD_ON_A_CUT_FILE, path).split() == ["MODEL_FILE_LOST"]


REPLACE_UNDER_THE_MAPPING = """
import os, sys
from llamad.engine.bindings import GgufFile
file = GgufFile(sys.argv[1])
before = file.metadata()
with open(sys.argv[1] + ".new", "wb") as new:
    new.write(b"something else")
os.replace(sys.argv[1] + ".new", sys.argv[1])
print(file.metadata() == before)
"""


def test_a_replaced_file_does_not_disturb_an_open_one(tmp_path: Path) -> None:
    assert run_python(REPLACE_UNDER_THE_MAPPING, write(tmp_path, model())).split() == ["True"]


# ---- hyperparameters ---------------------------------------------------------------------------


def refused_model(
    tmp_path: Path,
    metadata: Mapping[str, bytes | None] | None = None,
    tensors: Mapping[str, TensorChange] | None = None,
) -> str:
    error = refused(write(tmp_path, model(metadata, tensors)))
    assert error.reason in {"MODEL_CORRUPT", "MODEL_UNSUPPORTED"}
    return str(error).removeprefix(f"{tmp_path / 'model.gguf'}: ")


def test_the_model_that_the_bad_ones_derive_from_is_good(tmp_path: Path) -> None:
    with EngineModel(write(tmp_path, model())) as opened:
        assert (opened.info.n_layers, opened.info.vocab_size) == (1, VOCAB)


BAD_KEYS: Mapping[str, Sequence[bytes | None]] = {
    "llama.block_count": [
        scalar(UINT32, 0),
        scalar(UINT32, 1 << 31),
        scalar(UINT64, 1 << 40),
        scalar(INT32, -1),
        scalar(FLOAT32, 2.0),
        scalar(STRING, "1"),
        None,
    ],
    "llama.embedding_length": [scalar(UINT32, 0), scalar(UINT32, 1 << 31), None],
    "llama.feed_forward_length": [scalar(UINT32, 0), scalar(INT64, -(1 << 62)), None],
    "llama.context_length": [scalar(UINT32, 0), scalar(UINT64, 1 << 40), None],
    "llama.attention.head_count": [
        scalar(UINT32, 0),
        scalar(UINT32, 1 << 20),
        array(UINT32, 1, struct.pack("<I", 4)),
        None,
    ],
    "llama.attention.head_count_kv": [scalar(UINT32, 0), scalar(UINT32, 3), scalar(UINT32, 8)],
    "llama.attention.key_length": [scalar(UINT32, 0), scalar(UINT32, 1 << 16)],
    "llama.attention.value_length": [scalar(UINT32, 0), scalar(UINT32, 2)],
    "llama.attention.layer_norm_rms_epsilon": [
        scalar(FLOAT32, 0.0),
        scalar(FLOAT32, -1e-5),
        scalar(FLOAT32, float("nan")),
        scalar(FLOAT32, float("inf")),
        scalar(FLOAT64, 1e300),
        scalar(UINT32, 1),
        None,
    ],
    "llama.rope.freq_base": [
        scalar(FLOAT32, 0.0),
        scalar(FLOAT32, -10000.0),
        scalar(FLOAT32, float("nan")),
        scalar(FLOAT32, float("inf")),
        scalar(STRING, "10000"),
    ],
    "llama.rope.dimension_count": [scalar(UINT32, 0), scalar(UINT32, 3), scalar(UINT32, 64)],
    "llama.rope.scaling.type": [scalar(STRING, "ntk"), scalar(UINT32, 1)],
    "llama.rope.scaling.factor": [scalar(FLOAT32, 0.0), scalar(FLOAT32, float("nan"))],
    "general.architecture": [scalar(UINT32, 1), scalar(STRING, ""), scalar(STRING, "gpt-j"), None],
    "tokenizer.ggml.tokens": [strings(["a"]), strings(["a"] * (VOCAB + 1))],
}


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_hyperparameter_outside_its_range_is_refused(tmp_path: Path, key: str) -> None:
    for value in BAD_KEYS[key]:
        message = refused_model(tmp_path, {key: value})
        named = "architecture" if key == "general.architecture" else f"'{key}'"
        assert named in message, (value, message)


# What the engine does not compute, as files of other families and tools write it.
UNSUPPORTED_KEYS: Mapping[str, Sequence[bytes]] = {
    "llama.attention.causal": [scalar(BOOL, False)],
    "llama.attention.clamp_kqv": [scalar(FLOAT32, 8.0)],
    "llama.attention.max_alibi_bias": [scalar(FLOAT32, 8.0)],
    "llama.attention.recurrent_layers": [array(BOOL, 2, b"\0\1")],
    "llama.attention.rope_pattern": [array(BOOL, 2, b"\1\0")],
    "llama.attention.scale": [scalar(FLOAT32, 0.0078125)],
    "llama.attention.temperature_scale": [scalar(FLOAT32, 0.1)],
    "llama.attn_logit_softcapping": [scalar(FLOAT32, 50.0)],
    "llama.embedding_scale": [scalar(FLOAT32, 12.0), scalar(FLOAT32, float("nan"))],
    "llama.expert_used_count": [scalar(UINT32, 2)],
    "llama.final_logit_softcapping": [scalar(FLOAT32, 30.0)],
    "llama.hidden_activation": [scalar(STRING, "gelu")],
    "llama.logit_scale": [scalar(FLOAT32, 16.0), scalar(FLOAT64, 16.0)],
    "llama.nextn_predict_layers": [scalar(UINT32, 1)],
    "llama.pooling_type": [scalar(UINT32, 4)],
    "llama.residual_scale": [scalar(FLOAT32, 0.22)],
    "llama.rope.scaling.alpha": [scalar(FLOAT32, 1000.0)],
    "llama.rope.scaling.yarn_log_multiplier": [scalar(FLOAT32, 0.1)],
    "llama.use_parallel_residual": [scalar(BOOL, True)],
}


@pytest.mark.parametrize("key", UNSUPPORTED_KEYS)
def test_a_key_that_asks_for_what_the_engine_lacks_is_refused(tmp_path: Path, key: str) -> None:
    for value in UNSUPPORTED_KEYS[key]:
        error = refused(write(tmp_path, model({key: value})))
        assert error.reason == "MODEL_UNSUPPORTED"
        assert f"'{key}'" in str(error)


def test_keys_that_say_not_used_are_accepted(tmp_path: Path) -> None:
    keys = {
        "llama.attention.causal": scalar(BOOL, True),
        "llama.attention.scale": scalar(FLOAT32, HEAD_DIM**-0.5),
        "llama.attention.sliding_window": scalar(UINT32, 0),
        "llama.attention.rope_pattern": array(BOOL, 2, b"\1\1"),
        "llama.attention.recurrent_layers": array(BOOL, 0, b""),
        "llama.embedding_scale": scalar(FLOAT32, 1.0),
        "llama.expert_count": scalar(UINT32, 0),
        "llama.final_logit_softcapping": scalar(FLOAT32, 0.0),
        "llama.hidden_activation": scalar(STRING, "silu"),
        "llama.pooling_type": scalar(UINT32, 3),
        "llama.rope.scaling.yarn_ext_factor": scalar(FLOAT32, -1.0),
        "llama.some.new_key": scalar(FLOAT32, 7.0),
    }
    with EngineModel(write(tmp_path, model(keys))) as opened:
        assert opened.info.dim == DIM


def test_a_sliding_window_cuts_the_context_and_with_scaled_rope_it_is_refused(
    tmp_path: Path,
) -> None:
    window = {"llama.attention.sliding_window": scalar(UINT32, 4)}
    with EngineModel(write(tmp_path, model(window))) as opened:
        assert opened.info.n_ctx_train == 4
    scaled = window | {"llama.rope.scaling.factor": scalar(FLOAT32, 4.0)}
    assert "'llama.attention.sliding_window'" in refused_model(tmp_path, scaled)


def test_a_yarn_magnitude_other_than_yarns_is_refused(tmp_path: Path) -> None:
    yarn = {
        "llama.rope.scaling.type": scalar(STRING, "yarn"),
        "llama.rope.scaling.factor": scalar(FLOAT32, 4.0),
    }
    key = "llama.rope.scaling.yarn_attn_factor"
    own = 1 + 0.1 * math.log(4)
    assert f"'{key}'" in refused_model(tmp_path, yarn | {key: scalar(FLOAT32, 1.0)})
    with EngineModel(write(tmp_path, model(yarn | {key: scalar(FLOAT32, own)}))) as opened:
        assert opened.info.dim == DIM


def test_a_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    assert "one of 3 parts" in refused_model(tmp_path, {"split.count": scalar(UINT16, 3)})
    with EngineModel(write(tmp_path, model({"split.count": scalar(UINT16, 1)}))) as opened:
        assert opened.info.dim == DIM


def test_an_odd_head_dimension_is_refused(tmp_path: Path) -> None:
    assert "head dimension is 5" in refused_model(
        tmp_path, {"llama.attention.key_length": scalar(UINT32, 5)}
    )


# ---- tensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL_TENSORS)
def test_a_tensor_that_is_missing_or_misshapen_is_refused(tmp_path: Path, name: str) -> None:
    shape: TensorChange = ((DIM + 1, 3, 2), F32)
    assert f"'{name}'" in refused_model(tmp_path, tensors={name: shape})
    if name != "output.weight":  # without one the embedding is used
        assert f"tensor '{name}' is missing" in refused_model(tmp_path, tensors={name: None})


BAD_TENSORS: Mapping[str, tuple[str, TensorChange]] = {
    "norm of a block format": ("output_norm.weight", ((32,), Q8_0)),
    "matrix as a vector": ("blk.0.ffn_up.weight", ((DIM * HIDDEN,), F32)),
    "transposed": ("blk.0.ffn_up.weight", ((HIDDEN, DIM), F32)),
    "embedding of another dim": ("token_embd.weight", ((DIM * 2, VOCAB), F32)),
    "embedding of another vocabulary": ("token_embd.weight", ((DIM, VOCAB - 1), F32)),
    "output of another vocabulary": ("output.weight", ((DIM, VOCAB + 1), F32)),
    "bias of another length": ("blk.0.attn_q.bias", ((DIM + 1,), F32)),
    "rope factors of another length": ("rope_freqs.weight", ((1,), F32)),
    "rope factors of zero": ("rope_freqs.weight", ((2,), F16)),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_tensor_of_the_wrong_kind_is_refused(tmp_path: Path, case: str) -> None:
    name, change = BAD_TENSORS[case]
    assert f"'{name}'" in refused_model(tmp_path, tensors={name: change})


# Tensors that other loaders use, and nobody does: the answer without them is another model's.
UNBOUND = (
    "blk.0.attn_q.scale",
    "blk.0.attn_sub_norm.weight",
    "blk.0.ffn_norm.bias",
    "blk.0.post_ffw_norm.weight",
    "blk.1.attn_norm.weight",
    "output.scale",
    "cls.output.weight",
    "whatever",
)


@pytest.mark.parametrize("name", UNBOUND)
def test_a_tensor_that_nothing_uses_is_refused(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path, model(tensors={name: ((DIM,), F32)})))
    assert error.reason == "MODEL_UNSUPPORTED"
    assert f"tensor '{name}'" in str(error)


def test_stored_rope_angles_may_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, model(tensors={"blk.0.attn_rot_embd": ((HEAD_DIM // 2,), F32)}))
    with EngineModel(path) as opened:
        assert opened.info.dim == DIM


def test_weight_bytes_count_the_biases(tmp_path: Path) -> None:
    with EngineModel(write(tmp_path, model())) as opened:
        plain = opened.info
    biases: Mapping[str, TensorChange] = {
        "output.bias": ((VOCAB,), F32),
        "blk.0.ffn_gate.bias": ((HIDDEN,), F32),
        "blk.0.ffn_up.bias": ((HIDDEN,), F16),
        "blk.0.ffn_down.bias": ((DIM,), F32),
    }
    n_bytes = 4 * VOCAB + 4 * HIDDEN + 2 * HIDDEN + 4 * DIM
    with EngineModel(write(tmp_path, model(tensors=biases))) as opened:
        assert opened.info.weight_bytes == plain.weight_bytes + n_bytes
        assert opened.info.streamed_bytes == plain.streamed_bytes + n_bytes


def test_a_norm_of_halves_may_be_written_with_two_dimensions(tmp_path: Path) -> None:
    path = write(tmp_path, model(tensors={"output_norm.weight": ((DIM, 1), F16)}))
    with EngineModel(path) as opened:
        assert opened.info.dim == DIM


def test_weights_that_are_not_finite_end_in_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, model(weight=float("nan")))
    with EngineModel(path) as opened, Engine(opened, n_threads=1, n_ctx=8) as engine:
        sampler = Sampler(GREEDY, vocab_size=VOCAB, n_ctx=8, seed=1)
        engine.forward([Run([1], 0, [0], 1)])
        with pytest.raises(EngineError) as caught:
            sampler.sample(engine, 0)
        assert caught.value.reason == "MODEL_NOT_FINITE"
