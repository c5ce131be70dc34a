"""A model that the engine cannot run is refused while it arrives, and nothing of it is kept."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from llamad.errors import LlamadError
from llamad.gguf.head import MAX_BYTES, ArrivingHead
from llamad.gguf.layout import GgufLayout
from llamad.gguf.value import ValueType
from tiny_gguf import TinySpec
from unit.transfer.transferring import new_transfer, receive, request_for

WEIGHTS = bytes(range(256)) * 400


def file_of(architecture: str, *, n_tokens: int = 500) -> bytes:
    """Return a file that only its head makes a model."""
    layout = GgufLayout()
    layout.add("general.architecture", architecture, ValueType.STRING)
    layout.add("general.quantization_version", 2, ValueType.UINT32)
    layout.add_array("tokenizer.ggml.scores", [0.5] * n_tokens, ValueType.FLOAT32)
    layout.add_array(
        "tokenizer.ggml.tokens", [f"token {i}" for i in range(n_tokens)], ValueType.STRING
    )
    layout.add_tensor("output_norm.weight", "F32", (64,))
    return layout.header() + WEIGHTS


def refusal(folder: Path, data: bytes, *, piece: int) -> tuple[LlamadError, int]:
    """Send a file until it is refused; return the error and the bytes that were sent."""
    transfer = new_transfer(folder, request_for(data))
    transfer.open()
    try:
        for first in range(0, len(data), piece):
            try:
                transfer.write(first, data[first : first + piece])
            except LlamadError as error:
                return error, first + piece
        pytest.fail("it was taken")
    finally:
        transfer.close()


def test_an_unknown_architecture_is_refused_after_the_first_bytes(tmp_path: Path) -> None:
    error, n_bytes = refusal(tmp_path, file_of("mamba9"), piece=64)
    assert error.reason == "MODEL_UNSUPPORTED"
    assert error.message.startswith("m: architecture 'mamba9' is not supported")
    assert n_bytes <= 128
    assert list(tmp_path.iterdir()) == []


def test_a_type_that_the_engine_does_not_know_is_refused_when_the_head_is_whole(
    tmp_path: Path, tiny_model_path: Callable[[TinySpec], Path]
) -> None:
    data = bytearray(tiny_model_path(TinySpec()).read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # behind the number of dimensions and both
    data[at : at + 4] = (19).to_bytes(4, "little")  # IQ1_S
    error, n_bytes = refusal(tmp_path, bytes(data), piece=256)
    assert error.reason == "MODEL_UNSUPPORTED"
    assert name.decode() in error.message
    assert n_bytes < len(data)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_can_run_is_taken_in_any_pieces(
    tmp_path: Path, tiny_model_path: Callable[[TinySpec], Path]
) -> None:
    data = tiny_model_path(TinySpec()).read_bytes()
    for piece in (7, 1000, len(data)):
        (tmp_path / str(piece)).mkdir()
        stored = receive(tmp_path / str(piece), request_for(data), data, piece=piece)
        assert stored.file.path.read_bytes() == data


def test_the_end_of_the_head_is_found_in_any_pieces() -> None:
    data = file_of("llama")
    end = len(data) - len(WEIGHTS)
    choose = random.Random(1)
    for _ in range(50):
        head, at = ArrivingHead(), 0
        while at < len(data):
            n_bytes = choose.choice((1, 2, 9, 100, 5000))
            head.feed(data[at : at + n_bytes])
            at += n_bytes
        assert head.architecture == "llama"
        assert head.n_bytes is not None
        assert head.n_bytes <= end < head.n_bytes + 32  # padding
        assert not head.lost


@pytest.mark.parametrize("number", range(200))
def test_a_head_of_random_changes_takes_bounded_memory_and_raises_nothing(number: int) -> None:
    choose = random.Random(number)
    data = bytearray(file_of("llama", n_tokens=20))
    for _ in range(choose.randint(1, 8)):
        data[choose.randrange(len(data) // 2)] = choose.randrange(256)
    head = ArrivingHead()
    for first in range(0, len(data), 333):
        head.feed(bytes(data[first : first + 333]))
    assert head.lost or len(head.data) <= len(data)


def test_a_head_without_end_is_given_up() -> None:
    layout = GgufLayout()
    layout.add_array("a", [0], ValueType.UINT8)
    data = bytearray(layout.header())
    data[24 + 8 + 1 + 8 : 24 + 8 + 1 + 16] = (MAX_BYTES).to_bytes(8, "little")
    head = ArrivingHead()
    head.feed(bytes(data))
    assert head.lost
    assert not head.data
