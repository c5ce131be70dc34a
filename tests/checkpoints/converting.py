"""Run ``llamad convert`` in the test's own process and read what it wrote."""

import os
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from llamad.__main__ import main

Tensors = dict[str, tuple[str, NDArray[np.float32]]]


def convert(source: Path, out: Path, type_name: str | None = None) -> Path:
    """Convert; the command must succeed."""
    arguments = ["convert", str(source), str(out)]
    assert main([*arguments, "--type", type_name] if type_name else arguments) == 0
    return out


def refused(
    capsys: pytest.CaptureFixture[str], source: Path, out: Path, type_name: str = "F16"
) -> str:
    """Convert; the command must fail with one line, and leave nothing in the folder of ``out``."""
    before = set(out.parent.iterdir())
    capsys.readouterr()
    assert main(["convert", str(source), str(out), "--type", type_name]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert set(out.parent.iterdir()) == before
    return message


IRREGULAR = ("fifo", "folder", "device")


def make_irregular(path: Path, kind: str) -> None:
    """Put something there that is no regular file, of one of the kinds in ``IRREGULAR``."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")


def read_tensors(path: Path) -> Tensors:
    """Return type and dequantized values of every tensor, through the ``gguf`` package."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def data_bytes(path: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor."""
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}
