"""Meta's checkpoints: types, shards, names and numbers; and the checkpoints that are refused."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.converting import (
    IRREGULAR,
    convert,
    data_bytes,
    make_irregular,
    read_tensors,
    refused,
)
from checkpoints.llama_folder import DIM, HIDDEN, LAYERS, PARAMS, TOKENIZER, VOCAB, WEIGHTS, write
from llamad.__main__ import main
from llamad.engine.bindings import read_metadata
from pth_file import encode, llama_weights, sentencepiece_model, write_llama_folder
from tiny_gguf import vocabulary

NAMES = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
    "layers.1.attention.wq.weight": "blk.1.attn_q.weight",
    "layers.1.attention.wk.weight": "blk.1.attn_k.weight",
    "layers.1.attention.wv.weight": "blk.1.attn_v.weight",
    "layers.1.attention.wo.weight": "blk.1.attn_output.weight",
    "layers.1.feed_forward.w1.weight": "blk.1.ffn_gate.weight",
    "layers.1.feed_forward.w2.weight": "blk.1.ffn_down.weight",
    "layers.1.feed_forward.w3.weight": "blk.1.ffn_up.weight",
    "layers.1.attention_norm.weight": "blk.1.attn_norm.weight",
    "layers.1.ffn_norm.weight": "blk.1.ffn_norm.weight",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_weights_keep_their_bits_and_their_type(tmp_path: Path, out: Path, type_name: str) -> None:
    path = convert(write(tmp_path, type_name=type_name), out)
    stored = data_bytes(path)
    assert len(stored) == 3 + 9 * LAYERS
    for theirs, ours in NAMES.items():
        expected = encode(WEIGHTS[theirs], type_name)
        if WEIGHTS[theirs].ndim == 1:  # vectors are float32 in every file
            kind, values = read_tensors(path)[ours]
            assert kind == "F32"
            assert encode(values, type_name) == expected
        else:
            assert stored[ours] == expected


@pytest.mark.parametrize("n_shards", [2, 4])
@pytest.mark.parametrize("type_name", [None, "Q4_0", "Q3_K_M"])
def test_shards_give_the_bits_of_the_whole(
    tmp_path: Path, out: Path, n_shards: int, type_name: str | None
) -> None:
    whole = convert(write(tmp_path), out, type_name)
    sharded = write(tmp_path, n_shards=n_shards, name="sharded")
    joined = convert(sharded, out.with_name("joined.gguf"), type_name)
    assert data_bytes(joined) == data_bytes(whole)


def test_shards_of_fewer_keys_than_queries_join(tmp_path: Path, out: Path) -> None:
    """Llama 2 70B has eight shards, each with one of eight heads of keys and of values."""
    weights = llama_weights(VOCAB, DIM, HIDDEN, LAYERS, kv_dim=DIM // 2)
    whole, joined = (
        convert(
            write_llama_folder(
                tmp_path / f"{n_shards}",
                weights,
                PARAMS | {"n_kv_heads": 2, "multiple_of": 4096, "ffn_dim_multiplier": 1.3},
                TOKENIZER,
                n_shards=n_shards,
                type_name="BF16",
            ),
            out.with_name(f"{n_shards}.gguf"),
        )
        for n_shards in (1, 2)
    )
    assert data_bytes(joined) == data_bytes(whole)
    metadata = read_metadata(joined)
    assert metadata["llama.attention.head_count_kv"] == 2
    assert metadata["llama.feed_forward_length"] == HIDDEN


def test_an_embedding_cut_by_tokens_is_recognized(
    tmp_path: Path, out: Path, monkeypatch: Any
) -> None:
    whole = convert(write(tmp_path), out)
    monkeypatch.setattr(
        "pth_file.COLUMN_PARALLEL", ("wq", "wk", "wv", "w1", "w3", "output", "tok_embeddings")
    )
    sharded = write(tmp_path, n_shards=2, name="sharded")
    joined = convert(sharded, out.with_name("joined.gguf"))
    assert data_bytes(joined) == data_bytes(whole)


def test_metadata_is_that_of_a_llama_model(tmp_path: Path, out: Path) -> None:
    metadata = read_metadata(convert(write(tmp_path), out, "q4_0"))
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "llama"
    assert metadata["general.file_type"] == 2
    assert metadata["llama.block_count"] == LAYERS
    assert metadata["llama.feed_forward_length"] == HIDDEN
    assert metadata["llama.attention.head_count_kv"] == 4
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert metadata["llama.rope.freq_base"] == 10000.0
    assert metadata["llama.vocab_size"] == VOCAB
    pieces, scores, types = vocabulary(VOCAB)
    assert metadata["tokenizer.ggml.tokens"] == pieces
    assert metadata["tokenizer.ggml.scores"] == scores
    assert metadata["tokenizer.ggml.token_type"] == types


@pytest.mark.parametrize(
    ("params", "context"),
    [
        ({}, 2048),  # LLaMA
        ({"norm_eps": 1e-5}, 4096),  # Llama 2
        ({"norm_eps": 1e-5, "rope_theta": 1000000}, 16384),  # Code Llama
    ],
)
def test_the_context_follows_from_the_generation(
    tmp_path: Path, out: Path, params: dict[str, Any], context: int
) -> None:
    metadata = read_metadata(convert(write(tmp_path, params=params), out))
    assert metadata["llama.context_length"] == context


@pytest.mark.parametrize("type_name", ["Q4_0", "F16", "F32"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("layers.1.feed_forward.w1.weight", "blk.1.ffn_gate.weight"),
        ("layers.0.ffn_norm.weight", "blk.0.ffn_norm.weight"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_weight_that_is_no_number_is_named(
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    type_name: str,
    name: str,
    theirs: str,
    value: float,
) -> None:
    broken = WEIGHTS[name].copy()
    broken.flat[-1] = value
    monkeypatch.setitem(WEIGHTS, name, broken)
    for source_type in ("F16", "F32"):
        folder = write(tmp_path, type_name=source_type)
        assert theirs in refused(capsys, folder, out, type_name)


# ---- what is missing or does not belong together -----------------------------------------------


def checklist_of(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pth", ".json"))
    return "".join(f"{hashlib.md5(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files)


def test_a_checklist_is_verified(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    (folder / "checklist.chk").write_text(checklist_of(folder))
    convert(folder, out)
    (folder / "params.json").write_text(json.dumps(PARAMS | {"rope_theta": 5000.0}))
    message = refused(capsys, folder, out.with_name("other.gguf"))
    assert "params.json" in message
    assert "MD5" in message


def test_a_listed_file_that_is_missing_is_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, n_shards=2)
    (folder / "checklist.chk").write_text(checklist_of(folder))
    (folder / "consolidated.01.pth").unlink()
    assert "consolidated.01.pth is missing" in refused(capsys, folder, out)


def test_a_checklist_of_any_size_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    (folder / "checklist.chk").write_bytes(bytes((64 << 10) + 1))
    assert "checklist.chk: is larger than 65536 bytes" in refused(capsys, folder, out)


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_missing_shard_is_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], missing: int
) -> None:
    folder = write(tmp_path, n_shards=4)
    (folder / f"consolidated.{missing:02}.pth").unlink()
    assert f"consolidated.{missing:02}.pth is missing" in refused(capsys, folder, out)


def test_a_shard_of_another_model_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, n_shards=2)
    other = llama_weights(VOCAB, DIM, HIDDEN, LAYERS, kv_dim=DIM, seed=2)
    stranger = write_llama_folder(tmp_path / "other", other, PARAMS, TOKENIZER, n_shards=2)
    (stranger / "consolidated.01.pth").replace(folder / "consolidated.01.pth")
    assert "another model" in refused(capsys, folder, out)


def test_a_shard_with_other_layers_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, n_shards=2)
    deeper = llama_weights(VOCAB, DIM, HIDDEN, LAYERS + 1, kv_dim=DIM)
    stranger = write_llama_folder(tmp_path / "other", deeper, PARAMS, TOKENIZER, n_shards=2)
    (stranger / "consolidated.01.pth").replace(folder / "consolidated.01.pth")
    message = refused(capsys, folder, out)
    assert "consolidated.01.pth" in message
    assert "another model" in message


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"dim": 60}, "wq"),
        ({"n_layers": 3}, "blk.2."),
        ({"n_layers": 1}, "blk.1."),
        ({"n_heads": 0}, "n_heads"),
        ({"norm_eps": "small"}, "norm_eps"),
        ({"vocab_size": 32000}, "32000"),
        ({"n_kv_heads": 3}, "4 heads"),
        ({"norm_eps": 1e300}, "norm_eps"),
        ({"norm_eps": math.inf}, "norm_eps"),
        ({"norm_eps": 1e-300}, "norm_eps"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": math.nan}, "rope_theta"),
        ({"dim": 10**400}, "dim is 1000"),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], params: Any, word: str
) -> None:
    assert word in refused(capsys, write(tmp_path, params=params), out)


def test_a_tokenizer_of_another_size_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    other = sentencepiece_model(list(zip(*vocabulary(VOCAB + 20), strict=True)))
    (folder / "tokenizer.model").write_bytes(other)
    message = refused(capsys, folder, out)
    assert "320 tokens" in message
    assert "300" in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"IQ== 0\nIg== 1\n", "byte 0x00"),
        (TOKENIZER[:-20], "broken"),
        (b"", "sentencepiece"),
        (b"\x0a\x00" * (5 << 20), "larger than 8388608 bytes"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], content: bytes, word: str
) -> None:
    folder = write(tmp_path)
    (folder / "tokenizer.model").write_bytes(content)
    message = refused(capsys, folder, out)
    assert "tokenizer.model" in message
    assert word in message


def test_two_tokens_of_one_text_are_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    pieces = list(zip(*vocabulary(VOCAB), strict=True))
    pieces[290] = (pieces[270][0], *pieces[290][1:])
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
    assert "tokens 270 and 290 of the vocabulary are both" in refused(capsys, folder, out)


@pytest.mark.parametrize("name", ["params.json", "tokenizer.model", "consolidated.00.pth"])
def test_a_missing_file_is_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = write(tmp_path)
    (folder / name).unlink()
    assert name in refused(capsys, folder, out)


# ---- the output --------------------------------------------------------------------------------


def test_the_output_may_not_be_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path)
    shard, above = folder / "consolidated.00.pth", tmp_path / "tokenizer.model"
    (folder / above.name).replace(above)  # as the download of 2023 had it
    content = shard.read_bytes()
    same, link = tmp_path / "same.gguf", tmp_path / "link.gguf"
    same.hardlink_to(shard)
    link.symlink_to(shard)
    for target in (shard, same, link, above):
        assert "is the input" in refused(capsys, folder, target)
    assert shard.read_bytes() == content
    assert above.read_bytes() == TOKENIZER


@pytest.mark.parametrize("name", ["consolidated.00.pth", "params.json", "tokenizer.model"])
@pytest.mark.parametrize("kind", IRREGULAR)
def test_an_input_that_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    folder = write(tmp_path)
    path = folder / name
    path.unlink()
    make_irregular(path, kind)
    assert name in refused(capsys, folder, out)


@pytest.mark.parametrize("name", ["out", "pipe", "null", "absent/model.gguf"])
def test_a_place_where_no_file_can_be_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    target, folder = tmp_path / name, write(tmp_path)
    assert main(["convert", str(folder), str(target)]) == 1
    message = capsys.readouterr().err
    assert "no regular file" in message or "directory does not exist" in message
    assert Path("/dev/null").is_char_device()


def test_an_unknown_type_is_refused_by_name(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Q9_9" in refused(capsys, write(tmp_path), out, "Q9_9")


def test_a_source_that_is_no_checkpoint_is_refused(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("these are no weights\n")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert "config.json" in refused(capsys, tmp_path / "empty", out)
    assert "no checkpoint" in refused(capsys, tmp_path / "notes.txt", out)
    assert "llamad quantize" in refused(capsys, tmp_path / "model.gguf", out)
    assert "no such file" in refused(capsys, tmp_path / "absent", out)


def test_memory_does_not_grow_with_the_model(tmp_path: Path, out: Path, monkeypatch: Any) -> None:
    pieces = []
    from llamad_tools.checkpoints.source import SourceFile

    read = SourceFile.read

    def counting(self: SourceFile, offset: int, n_bytes: int) -> bytes:
        pieces.append(n_bytes)
        return read(self, offset, n_bytes)

    monkeypatch.setattr(SourceFile, "read", counting)
    monkeypatch.setattr("llamad_tools.checkpoints.conversion.PIECE_WEIGHTS", 1024)
    path = convert(write(tmp_path), out)
    assert max(pieces) <= 2 * 1024
    monkeypatch.undo()
    whole = convert(write(tmp_path), out.with_name("whole.gguf"))
    assert data_bytes(path) == data_bytes(whole)
    assert np.isfinite(read_tensors(path)["token_embd.weight"][1]).all()
