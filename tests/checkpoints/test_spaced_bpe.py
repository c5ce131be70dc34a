"""Gemma 4's tokenizer.json: text there and back, and what is refused, by file and field."""

from pathlib import Path
from typing import Any

import pytest

from checkpoints.huggingface_folder import write_json
from llamad.errors import LlamadError
from llamad.text import tokenizer_from_metadata
from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer

MERGES = ["▁ t", "h e", "▁t he", "\n \n"]
TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("▁", "\n", "a", "e", "h", "t"),
    *("".join(merge.split(" ")) for merge in MERGES),
    "<|tool_call>",
]


def tokenizer_json(**model: Any) -> dict[str, Any]:
    special = [{"id": i, "content": text, "special": True} for i, text in enumerate(TOKENS[:4])]
    marker = {"id": len(TOKENS) - 1, "content": TOKENS[-1], "special": True}
    return {
        "added_tokens": [*special, marker],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "vocab": {text: i for i, text in enumerate(TOKENS[:-1])},
            "merges": MERGES,
        }
        | model,
    }


def read(folder: Path, content: dict[str, Any], n_tokens: int = len(TOKENS)) -> dict[str, Any]:
    write_json(folder / "tokenizer.json", content)
    config = {"vocab_size": n_tokens, "model_type": "gemma4_text", "bos_token_id": 2}
    return read_tokenizer(folder, config)


def test_text_comes_back_and_a_marker_of_tools_is_written_as_text(tmp_path: Path) -> None:
    metadata = read(tmp_path, tokenizer_json())
    assert metadata[PREFIX + "token_type"][-1] == TokenType.USER_DEFINED
    tokenizer = tokenizer_from_metadata(metadata)
    for text in ("the the\n\nat", " two  spaces", "naïve 日本語 🙂"):
        assert tokenizer.decode(tokenizer.encode(text, add_bos=False)) == text
    assert tokenizer.encode("the")[0] == TOKENS.index("<bos>")
    assert tokenizer.encode(" the", add_bos=False) == [TOKENS.index("▁the")]


@pytest.mark.parametrize(
    ("changes", "n_tokens", "word"),
    [
        ({}, len(TOKENS) - 5, "the model's embedding"),
        ({"merges": []}, len(TOKENS), "model.merges"),
        ({"merges": [["a"]]}, len(TOKENS), "merge"),
        ({"byte_fallback": False}, len(TOKENS), "byte_fallback"),
        ({"ignore_merges": True}, len(TOKENS), "ignore_merges"),
        ({"vocab": {"a": -1}}, len(TOKENS), "id -1"),
        ({"type": "Unigram"}, len(TOKENS), "Unigram"),
    ],
)
def test_a_vocabulary_that_is_not_gemma_4s_is_refused(
    tmp_path: Path, changes: dict[str, Any], n_tokens: int, word: str
) -> None:
    with pytest.raises(LlamadError) as caught:
        read(tmp_path, tokenizer_json(**changes), n_tokens)
    assert word in caught.value.message
    assert str(tmp_path / "tokenizer.json") in caught.value.message


def test_another_treatment_of_spaces_is_refused(tmp_path: Path) -> None:
    content = tokenizer_json() | {"pre_tokenizer": {"type": "ByteLevel"}}
    with pytest.raises(LlamadError, match="spaces"):
        read(tmp_path, content)
