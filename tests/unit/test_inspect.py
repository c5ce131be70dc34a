"""``llamad inspect``: both outputs, on good and strange files."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.gguf_bytes import (
    DIM,
    F16,
    FLOAT32,
    INT32,
    STRING,
    UINT32,
    VOCAB,
    array,
    gguf,
    model,
    scalar,
    string,
    strings,
)
from llamad.__main__ import main
from tiny_adapter import TinyAdapter, write_tiny_adapter
from tiny_gguf import TinySpec

EXTRA = {
    "general.name": scalar(STRING, "Tiny"),
    "tokenizer.chat_template": scalar(STRING, "{{ messages }}"),
    "a.long.array": array(INT32, 20, struct.pack("<20i", *range(20))),
    "a.short.array": strings(["one", "two"]),
}


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def inspect(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def inspect_json(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    lines = inspect(capsys, path, "--json").splitlines()
    assert len(lines) == 1
    result: dict[str, Any] = json.loads(lines[0], parse_constant=no_constant)
    return result


def test_json_tells_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = model(EXTRA, {"output_norm.weight": ((DIM, 1), F16)})
    path = write(tmp_path, content)
    result = inspect_json(capsys, path)
    assert result["path"] == str(path)
    assert (result["version"], result["file_bytes"]) == (3, len(content))
    assert (result["architecture"], result["name"]) == ("llama", "Tiny")
    assert result["metadata"]["llama.block_count"] == 1
    assert result["metadata"]["a.short.array"] == ["one", "two"]
    assert result["metadata"]["a.long.array"] == {
        "type": "integer",
        "count": 20,
        "head": [0, 1, 2, 3, 4, 5, 6, 7],
    }
    assert result["metadata"]["tokenizer.ggml.tokens"]["count"] == VOCAB


def test_json_lists_tensors_and_sums_their_types(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = model(tensors={"output_norm.weight": ((DIM, 1), F16)})
    result = inspect_json(capsys, write(tmp_path, content))
    tensors = {tensor["name"]: tensor for tensor in result["tensors"]}
    embedding, norm = tensors["token_embd.weight"], tensors["output_norm.weight"]
    assert (embedding["type"], embedding["shape"]) == ("F32", [DIM, VOCAB])
    assert content[embedding["offset"] :][: embedding["bytes"]] == struct.pack(
        f"<{DIM * VOCAB}f", *[0.125] * (DIM * VOCAB)
    )
    assert norm["bytes"] == 2 * DIM
    assert result["types"]["F16"] == {"tensors": 1, "elements": DIM, "bytes": 2 * DIM}
    assert sum(share["tensors"] for share in result["types"].values()) == len(tensors)
    assert list(result["types"]) == ["F32", "F16"]  # the largest share first


def test_json_stays_json_with_numbers_and_bytes_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        string("nan") + scalar(FLOAT32, float("nan")),
        string("infinite") + array(FLOAT32, 2, struct.pack("<2f", float("inf"), 1.5)),
        string("bytes") + scalar(STRING, b"\xff\x00"),
        string("empty") + array(UINT32, 0),
    ]
    result = inspect_json(capsys, write(tmp_path, gguf(entries)))
    assert result["metadata"] == {
        "nan": "nan",
        "infinite": ["inf", 1.5],
        "bytes": "\udcff\x00",
        "empty": [],
    }
    assert (result["architecture"], result["tensors"], result["types"]) == ("", [], {})


def test_text_names_what_a_user_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspect(capsys, write(tmp_path, model(EXTRA)))
    for words in (
        "GGUF v3",
        "architecture   llama",
        "name           Tiny",
        f"vocabulary     {VOCAB} tokens, model llama",
        "chat template  yes, 14 characters",
        "  attention.head_count_kv           2\n",
        "  attention.layer_norm_rms_epsilon  1e-05\n",
        "12 tensors",
        "[0, 1, 2, 3, 4, 5, 6, 7, ...] (20 elements)",
    ):
        assert words in text
    assert "blk.0.attn_q.weight" not in text


def test_an_adapter_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = TinyAdapter(rank=6, metadata={"general.base_model.0.name": "Tiny base"})
    path = write_tiny_adapter(tmp_path / "adapter.gguf", TinySpec(), adapter)
    assert main(["inspect", str(path)]) == 0
    assert "adapter        LoRA, rank 6, made for Tiny base\n" in capsys.readouterr().out


def test_text_lists_the_tensors_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspect(capsys, write(tmp_path, model()), "--tensors")
    (line,) = [line for line in text.splitlines() if "blk.0.attn_k.weight" in line]
    assert line.split()[1:5] == ["F32", str(DIM), "x", "8"]


def test_text_of_a_file_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        string("general.name") + scalar(STRING, b"red \x1b[31m \xff \xe2\x80\xae"),
        string("key\nfake") + scalar(STRING, "x\r\ny"),
    ]
    text = inspect(capsys, write(tmp_path, gguf(entries)))
    assert "name           red \\x1b[31m \\udcff \\u202e\n" in text
    assert "key\\nfake" in text
    assert "\x1b" not in text
    assert "\r" not in text


def test_a_bad_file_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, b"GGUF\x04\0\0\0")
    assert main(["inspect", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"llamad: {path}: GGUF version 4 is newer than 3\n"
