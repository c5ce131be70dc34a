"""Files from before GGUF: every era and type converts to what it stands for."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.converting import convert, read_tensors, refused
from golden_files import SENTENCEPIECE_MODEL, excerpt
from legacy_ggml import ERAS, FIRST_DAYS, Era, types_of, vocabulary_of, write_legacy
from llamad.engine.bindings import EngineModel, read_metadata
from llamad.text import load_tokenizer
from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.legacy_file import default_score
from llamad_tools.checkpoints.llama_folder import gguf_name
from llamad_tools.checkpoints.sentencepiece_file import read_vocabulary
from pth_file import llama_weights, shard_of
from tiny_gguf import vocabulary

VOCAB, DIM, HIDDEN, LAYERS, HEADS = 300, 64, 96, 2, 4
WEIGHTS = {
    name: values
    for name, values in llama_weights(VOCAB, DIM, HIDDEN, LAYERS, kv_dim=DIM).items()
    if name != "rope.freqs"
}
PIECES, SCORES, TYPES = vocabulary(VOCAB)
NEWEST = ERAS[-1]

# A scale of 24 bits becomes one of 11: half a unit in the last place, of scale and minimum each.
F16_SCALE = 2.0**-11


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def write(
    path: Path,
    era: Era = NEWEST,
    type_name: str = "Q4_0",
    weights: Any = None,
    n_texts: int = VOCAB,
    first_days: bool = False,
) -> dict[str, np.ndarray[Any, Any]]:
    meant = write_legacy(
        path,
        era,
        WEIGHTS if weights is None else weights,
        type_name,
        texts=vocabulary_of(PIECES, first_days=first_days)[:n_texts],
        scores=SCORES[:n_texts],
        n_heads=HEADS,
        n_layers=LAYERS,
        dim=DIM,
    )
    named = {name: gguf_name(name) for name in meant}
    return {target[0]: meant[name] for name, target in named.items() if target is not None}


ERA_TYPES = [(era, type_name) for era in (*FIRST_DAYS, *ERAS) for type_name in types_of(era)]


@pytest.mark.parametrize(("era", "type_name"), ERA_TYPES)
def test_values_are_exact_in_float32(tmp_path: Path, out: Path, era: Era, type_name: str) -> None:
    meant = write(tmp_path / "old.bin", era, type_name)
    found = read_tensors(convert(tmp_path / "old.bin", out, "F32"))
    assert found.keys() == meant.keys()
    for name, values in meant.items():
        assert found[name][0] == "F32"
        np.testing.assert_array_equal(found[name][1], values)


@pytest.mark.parametrize(("era", "type_name"), ERA_TYPES)
def test_blocks_keep_their_quants_without_a_type(
    tmp_path: Path, out: Path, era: Era, type_name: str
) -> None:
    meant = write(tmp_path / "old.bin", era, type_name)
    found = read_tensors(convert(tmp_path / "old.bin", out))
    exact = era.scale_format == "<e" or type_name in ("F32", "F16", "Q5_0", "Q5_1")
    for name, values in meant.items():
        kind, actual = found[name]
        assert kind == ("F32" if values.ndim == 1 else type_name)
        bound = 0.0 if exact else 2 * F16_SCALE * float(np.abs(values).max())
        assert np.abs(actual - values).max() <= bound


def test_the_file_loads_with_its_vocabulary(tmp_path: Path, out: Path) -> None:
    write(tmp_path / "old.bin", Era("ggmf", 1))
    path = convert(tmp_path / "old.bin", out)
    with EngineModel(path) as model:
        info = model.info
    assert (info.dim, info.hidden_dim, info.n_layers, info.n_heads) == (DIM, HIDDEN, LAYERS, HEADS)
    metadata = read_metadata(path)
    assert metadata["tokenizer.ggml.tokens"] == PIECES
    assert metadata["tokenizer.ggml.token_type"] == TYPES
    assert metadata["tokenizer.ggml.scores"] == SCORES
    assert metadata["general.file_type"] == 2
    assert metadata["llama.context_length"] == 2048
    tokenizer = load_tokenizer(path)
    text = "then the hat: naïve"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_vocabulary_without_scores_merges_in_its_own_order(tmp_path: Path, out: Path) -> None:
    write(tmp_path / "old.bin", Era("ggml", 0))
    metadata = read_metadata(convert(tmp_path / "old.bin", out))
    found = metadata["tokenizer.ggml.scores"]
    assert isinstance(found, list)
    scores = dict(zip(PIECES, found, strict=True))
    assert scores.pop("▁") == pytest.approx(-1e9)  # spaces last, as in LLaMA's vocabulary
    for piece, score in zip(PIECES, SCORES, strict=True):
        assert scores.get(piece, score) == score  # the writer's own are ranks too


def test_bytes_that_the_first_converter_could_not_print_come_back(
    tmp_path: Path, out: Path
) -> None:
    write(tmp_path / "old.bin", Era("ggml", 0), first_days=True)
    metadata = read_metadata(convert(tmp_path / "old.bin", out))
    assert metadata["tokenizer.ggml.tokens"] == PIECES
    assert metadata["tokenizer.ggml.token_type"] == TYPES


def test_scores_that_a_file_lacks_are_those_of_llamas_vocabulary() -> None:
    original = read_vocabulary(SENTENCEPIECE_MODEL)
    ids = excerpt("llama-spm").ids
    for token, piece, kind, score in zip(
        ids, original.pieces, original.types, original.scores, strict=True
    ):
        if kind == TokenType.NORMAL:
            assert default_score(token, piece) == score


def test_grouped_heads_are_those_of_llama_2(tmp_path: Path, out: Path) -> None:
    weights = llama_weights(VOCAB, DIM, HIDDEN, LAYERS, kv_dim=DIM // 2)
    write(tmp_path / "old.bin", NEWEST, "F16", weights)
    metadata = read_metadata(convert(tmp_path / "old.bin", out))
    assert metadata["llama.attention.head_count_kv"] == HEADS // 2
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert metadata["llama.context_length"] == 4096


@pytest.mark.parametrize(
    ("era", "epsilon"), [(Era("ggml", 0), 1e-6), (Era("ggjt", 2), 1e-6), (Era("ggjt", 3), 5e-6)]
)
def test_the_epsilon_follows_from_the_era(
    tmp_path: Path, out: Path, era: Era, epsilon: float
) -> None:
    write(tmp_path / "old.bin", era)
    metadata = read_metadata(convert(tmp_path / "old.bin", out))
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(epsilon)


@pytest.mark.parametrize("type_name", ["F16", "Q4_0"])
def test_a_model_in_parts_is_joined(tmp_path: Path, out: Path, type_name: str) -> None:
    era, hidden_dim = Era("ggmf", 1), 128  # halves of a row are whole blocks
    weights = llama_weights(VOCAB, DIM, hidden_dim, LAYERS, kv_dim=DIM)
    write(tmp_path / "whole.bin", era, type_name, weights)
    for index, suffix in enumerate(("", ".1")):
        part = {
            name: np.ascontiguousarray(shard_of(name, values, index, 2))
            for name, values in weights.items()
        }
        write(tmp_path / f"old.bin{suffix}", era, type_name, part)
    joined = read_tensors(convert(tmp_path / "old.bin", out))
    whole = read_tensors(convert(tmp_path / "whole.bin", out.with_name("whole.gguf")))
    for name, (kind, values) in whole.items():
        assert joined[name][0] == kind
        np.testing.assert_array_equal(joined[name][1], values)


def test_a_missing_part_is_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = {
        name: np.ascontiguousarray(shard_of(name, values, 0, 2)) for name, values in WEIGHTS.items()
    }
    write(tmp_path / "old.bin", NEWEST, "F16", part)
    assert "old.bin.1 is missing" in refused(capsys, tmp_path / "old.bin", out)


def test_a_file_cut_anywhere_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.bin"
    write(path)
    content = path.read_bytes()
    for length in (*range(4, 200, 13), *range(200, len(content), 2999), len(content) - 1):
        path.write_bytes(content[:length])
        assert str(path) in refused(capsys, path, out)


@pytest.mark.parametrize(
    ("position", "value", "word"),
    [
        (4, 9, "version 9"),
        (8, -1, "n_vocab is -1"),
        (8, 1 << 30, "n_vocab"),
        (12, 63, "n_embd 63"),
        (20, 0, "n_head is 0"),
        (24, 5000, "n_layer"),
        (24, 3, "blk.2."),
        (36, 1 << 30, "token 0"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused_by_name(
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    position: int,
    value: int,
    word: str,
) -> None:
    path = tmp_path / "old.bin"
    write(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, position, value)
    path.write_bytes(content)
    assert word in refused(capsys, path, out)


@pytest.mark.parametrize(("type_id", "version"), [(4, 3), (5, 1), (12, 2), (99, 3)])
def test_a_type_that_an_era_lacks_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], type_id: int, version: int
) -> None:
    path = tmp_path / "old.bin"
    write(path, Era("ggjt", version))
    content = bytearray(path.read_bytes())
    position = content.find(b"tok_embeddings.weight") - 12
    struct.pack_into("<i", content, position, type_id)
    path.write_bytes(content)
    assert f"type {type_id}" in refused(capsys, path, out)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [3e38, np.inf, np.nan])
def test_a_scale_that_makes_no_numbers_is_refused_in_one_line(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], scale: float
) -> None:
    path, name = tmp_path / "old.bin", b"output.weight"
    write(path, Era("ggjt", 2))
    content = bytearray(path.read_bytes())
    end = content.find(name) + len(name)
    struct.pack_into("<f", content, end + -end % 32, scale)
    path.write_bytes(content)
    assert "output.weight, from row 0" in refused(capsys, path, out, "Q8_0")


def test_a_vocabulary_of_another_size_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "old.bin", n_texts=299)
    message = refused(capsys, tmp_path / "old.bin", out)
    assert "299 tokens" in message
    assert "300" in message
