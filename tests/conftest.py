"""Fixtures that several test folders share: tiny models, written once a session."""

import os
import signal
from pathlib import Path

import pytest

# Before numpy is imported: its threads spin, and beside other programs the oracles would take
# ten times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tiny_gguf import TinyModelPath, TinySpec, write_tiny_model

# A shell's background job has SIGINT ignored, and the programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> TinyModelPath:
    """Return a function from a TinySpec to the path of its file; equal specs share one file."""
    folder = tmp_path_factory.mktemp("tiny-models")
    written: dict[str, Path] = {}

    def path_of(spec: TinySpec) -> Path:
        key = repr(spec)
        if key not in written:
            written[key] = write_tiny_model(folder / f"{len(written)}.gguf", spec)
        return written[key]

    return path_of
