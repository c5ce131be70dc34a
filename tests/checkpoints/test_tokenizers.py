"""Vocabularies survive the conversion: the same ids as their own library, text there and back."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from checkpoints.conftest import CORPUS
from checkpoints.converting import convert, refused
from checkpoints.fast_tokenizer import fast_tokenizer
from checkpoints.huggingface_folder import (
    MERGES,
    PRE_TOKENIZERS,
    SPECIAL,
    config_of,
    split,
    tokenizer_json,
    write_folder,
    write_json,
)
from checkpoints.test_huggingface_folder import their_weights
from llamad.errors import LlamadError
from llamad.text import Tokenizer, load_tokenizer, tokenizer_from_metadata
from llamad.text.vocabulary import TokenType
from llamad_tools.checkpoints.huggingface_tokenizer import read_tokenizer
from llamad_tools.checkpoints.sentencepiece_file import read_vocabulary
from reference import load
from tiny_gguf import TinyModelPath, TinySpec

TEXTS = (
    "The thin cat in the hat then ran.",
    "  two spaces, a\ttab\nand 12 lines; 12345",
    "they'll say: naïve café — 日本語 🙂",
    "",
    " ",
)


def write_tokenizer(folder: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            write_json(folder / name, content)
    return folder


def tokenizer_of(folder: Path, n_tokens: int, **config: Any) -> Tokenizer:
    return tokenizer_from_metadata(read_tokenizer(folder, {"vocab_size": n_tokens} | config))


def failure(folder: Path, n_tokens: int) -> str:
    with pytest.raises(LlamadError) as caught:
        read_tokenizer(folder, {"vocab_size": n_tokens})
    return caught.value.message


# ---- SentencePiece -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_ids_are_those_of_the_library(
    tmp_path: Path, trained_model: bytes, text: str
) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=trained_model)
    folder = write_tokenizer(tmp_path, {"tokenizer.model": trained_model})
    tokenizer = tokenizer_of(folder, library.vocab_size())
    ids = tokenizer.encode(text, add_bos=False)
    assert ids == library.EncodeAsIds(text)
    assert tokenizer.decode(ids) == text


def test_sentencepiece_pieces_scores_and_types_are_those_of_the_library(
    tmp_path: Path, trained_model: bytes
) -> None:
    library = sentencepiece.SentencePieceProcessor(model_proto=trained_model)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained_model)
    vocabulary = read_vocabulary(path)
    n = library.vocab_size()
    assert vocabulary.pieces == [library.IdToPiece(i) for i in range(n)]
    assert vocabulary.scores == [library.GetScore(i) for i in range(n)]
    for i in range(n):
        kind = vocabulary.types[i]
        assert (kind == TokenType.CONTROL) == library.IsControl(i)
        assert (kind == TokenType.UNKNOWN) == library.IsUnknown(i)
        assert (kind == TokenType.BYTE) == library.IsByte(i)
    assert vocabulary.types[vocabulary.pieces.index("<tool>")] == TokenType.USER_DEFINED
    assert vocabulary.adds_space_prefix
    assert (vocabulary.unk_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.pad_id) == (
        library.unk_id(),
        library.bos_id(),
        library.eos_id(),
        library.pad_id(),
    )


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS), model_writer=out, vocab_size=30, minloglevel=2
    )
    folder = write_tokenizer(tmp_path, {"tokenizer.model": out.getvalue()})
    assert "only BPE" in failure(folder, 30)


def test_tokens_added_after_training_keep_their_ids(tmp_path: Path, trained_model: bytes) -> None:
    added = {"330": {"content": "<|im_start|>", "special": True}, "331": {"content": "<x>"}}
    files = {
        "tokenizer.model": trained_model,
        "tokenizer_config.json": {"added_tokens_decoder": added},
    }
    tokenizer = tokenizer_of(write_tokenizer(tmp_path, files), 334)
    assert tokenizer.vocabulary.tokens[330:] == ["<|im_start|>", "<x>", "[PAD332]", "[PAD333]"]
    assert list(tokenizer.vocabulary.types[330:]) == [
        TokenType.CONTROL,
        TokenType.USER_DEFINED,
        TokenType.UNUSED,
        TokenType.UNUSED,
    ]
    assert 330 in tokenizer.encode("a<|im_start|>b", parse_special=True)


def test_more_pieces_than_the_embedding_has_are_refused(
    tmp_path: Path, trained_model: bytes
) -> None:
    folder = write_tokenizer(tmp_path, {"tokenizer.model": trained_model})
    assert "330 tokens, the model's embedding 320" in failure(folder, 320)


# ---- byte-level BPE ----------------------------------------------------------------------------

N_BPE = 256 + len(MERGES) + len(SPECIAL)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_bpe_text_comes_back(tmp_path: Path, pre: str, text: str) -> None:
    folder = write_tokenizer(tmp_path, {"tokenizer.json": tokenizer_json(PRE_TOKENIZERS[pre])})
    metadata = read_tokenizer(folder, {"vocab_size": N_BPE})
    assert metadata["tokenizer.ggml.pre"] == pre
    tokenizer = tokenizer_from_metadata(metadata)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bpe_merges_and_cuts_as_defined(tmp_path: Path) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["gpt-2"])
    vocab = content["model"]["vocab"]
    for pre, pieces in (
        ("gpt-2", ["a", "Ġthe", "12", "3", "'ll"]),
        ("qwen2", ["a", "Ġthe", "1", "2", "3", "'ll"]),
    ):
        content["pre_tokenizer"] = PRE_TOKENIZERS[pre]
        tokenizer = tokenizer_of(write_tokenizer(tmp_path, {"tokenizer.json": content}), N_BPE)
        assert tokenizer.encode("a the123'll") == [vocab[piece] for piece in pieces]


def test_merges_may_be_pairs(tmp_path: Path) -> None:
    pairs = tokenizer_json(PRE_TOKENIZERS["qwen2"], merges_as_pairs=True)
    words = tokenizer_json(PRE_TOKENIZERS["qwen2"])
    assert pairs != words
    results = []
    for content in (pairs, words):
        folder = write_tokenizer(tmp_path, {"tokenizer.json": content})
        results.append(read_tokenizer(folder, {"vocab_size": N_BPE}))
    assert results[0] == results[1]


def test_rows_of_the_embedding_without_a_token_are_named(tmp_path: Path) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["qwen2"])
    tokenizer = tokenizer_of(write_tokenizer(tmp_path, {"tokenizer.json": content}), N_BPE + 2)
    assert tokenizer.vocabulary.tokens[-2:] == [f"[PAD{N_BPE}]", f"[PAD{N_BPE + 1}]"]
    assert set(tokenizer.vocabulary.types[-2:]) == {TokenType.UNUSED}


def test_bpe_tokens_added_after_training_get_llama_cpps_types(tmp_path: Path) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["qwen2"])
    content["added_tokens"] += [
        {"id": N_BPE, "content": "<tool_call>", "special": False},
        {"id": N_BPE + 1, "content": "<|fim_prefix|>", "special": False},
        {"id": N_BPE + 9, "content": "<|beyond|>", "special": True},
    ]
    tokenizer = tokenizer_of(write_tokenizer(tmp_path, {"tokenizer.json": content}), N_BPE + 2)
    assert tokenizer.vocabulary.tokens[N_BPE:] == ["<tool_call>", "<|fim_prefix|>"]
    assert list(tokenizer.vocabulary.types[N_BPE:]) == [
        TokenType.USER_DEFINED,
        TokenType.CONTROL,
    ]


@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_tokens_of_an_older_folder_are_control_tokens_where_a_list_says_so(
    tmp_path: Path, trained_model: bytes, name: str
) -> None:
    files = {
        "tokenizer.model": trained_model,
        "added_tokens.json": {"[TOOL]": 330, "[PAD]": 331, "[TEXT]": 332},
        "special_tokens_map.json": {},
    }
    lists = {
        "pad_token": "[PAD]",
        "additional_special_tokens": ["[TOOL]", {"content": "[MORE]"}],
    }
    folder = write_tokenizer(tmp_path, files | {name: lists})
    assert list(tokenizer_of(folder, 333).vocabulary.types[330:]) == [
        TokenType.CONTROL,
        TokenType.CONTROL,
        TokenType.USER_DEFINED,
    ]


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "NFC"},
        {"type": "Sequence", "normalizers": []},  # DeepSeek's distilled models
        {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    ],
)
def test_a_normalizer_that_does_nothing_to_usual_text_is_left_out(
    tmp_path: Path, normalizer: object
) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["qwen2"]) | {"normalizer": normalizer}
    steps = content["pre_tokenizer"]["pretokenizers"]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [content["pre_tokenizer"]]}
    steps[1]["trim_offsets"] = False
    folder = write_tokenizer(tmp_path, {"tokenizer.json": content})
    assert read_tokenizer(folder, {"vocab_size": N_BPE})["tokenizer.ggml.pre"] == "qwen2"


def test_a_model_may_list_its_added_tokens_too(tmp_path: Path) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["qwen2"])
    expected = read_tokenizer(
        write_tokenizer(tmp_path, {"tokenizer.json": content}), {"vocab_size": N_BPE}
    )
    content["model"]["vocab"] |= {
        token["content"]: token["id"] for token in content["added_tokens"]
    }
    folder = write_tokenizer(tmp_path, {"tokenizer.json": content})
    assert read_tokenizer(folder, {"vocab_size": N_BPE}) == expected


def broken_tokenizers() -> dict[str, dict[str, Any]]:
    """Return tokenizer.json files by a word of their refusal."""
    good = tokenizer_json(PRE_TOKENIZERS["qwen2"])
    model = good["model"]
    return {
        r"\\\\p{N}{1,4}": tokenizer_json(split(r"\p{N}{1,4}")),
        "Whitespace": tokenizer_json({"type": "Whitespace"}),
        "'Unigram'": good | {"model": {"type": "Unigram"}},
        "dropout": good | {"model": model | {"dropout": 0.1}},
        "end_of_word_suffix": good | {"model": model | {"end_of_word_suffix": "</w>"}},
        "normalizer": good | {"normalizer": {"type": "Lowercase"}},
        "model.merges": good | {"model": model | {"merges": []}},
        "'abc'": good | {"model": model | {"merges": ["abc"]}},
        "9999": good | {"model": model | {"vocab": {"a": 9999}}},
        "model.vocab": good | {"model": model | {"vocab": None}},
        "added token": good | {"added_tokens": [{"id": 3}]},
    }


@pytest.mark.parametrize("word", broken_tokenizers())
def test_a_tokenizer_that_cannot_be_used_is_refused_by_name(tmp_path: Path, word: str) -> None:
    folder = write_tokenizer(tmp_path, {"tokenizer.json": broken_tokenizers()[word]})
    message = failure(folder, N_BPE)
    assert "tokenizer.json" in message
    assert word.replace("\\\\\\\\", "\\\\") in message


def test_a_chat_template_of_any_size_is_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, {"tokenizer.json": tokenizer_json(PRE_TOKENIZERS["qwen2"])})
    (folder / "chat_template.jinja").write_bytes(bytes((1 << 20) + 1))
    assert "chat_template.jinja: is larger than 1048576 bytes" in failure(folder, N_BPE)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    assert "neither tokenizer.model nor tokenizer.json" in failure(tmp_path, 10)


# ---- there and back ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizers(
    tmp_path_factory: pytest.TempPathFactory, trained_model: bytes
) -> dict[str, Tokenizer]:
    """Return one tokenizer of each kind of file."""
    contents: dict[str, tuple[str, object]] = {
        "tokenizer.model": ("tokenizer.model", trained_model),
        "tokenizer.json of one": ("tokenizer.json", fast_tokenizer(trained_model)),
    }
    for pre, definition in PRE_TOKENIZERS.items():
        contents[pre] = ("tokenizer.json", tokenizer_json(definition))
    result = {}
    for kind, (name, content) in contents.items():
        folder = write_tokenizer(tmp_path_factory.mktemp("there"), {name: content})
        result[kind] = tokenizer_of(folder, 330)
    return result


@pytest.mark.parametrize("kind", ["tokenizer.model", "tokenizer.json of one", *PRE_TOKENIZERS])
@seed(1)
@settings(max_examples=200, deadline=None, database=None)
@given(text=st.text() | st.text(st.sampled_from("the cat's 12\t\r\n \u00a0é日🙂<|end|>")))
def test_any_text_comes_back(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    expected = text.replace("▁", " ") if kind.startswith("tokenizer") else text
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == expected


# ---- roles and flags ---------------------------------------------------------------------------


def test_roles_come_from_the_tokenizer_then_the_model_then_generation(tmp_path: Path) -> None:
    begin, end, eom = (256 + len(MERGES) + i for i in range(3))
    files = {
        "tokenizer.json": tokenizer_json(PRE_TOKENIZERS["llama-bpe"]),
        "tokenizer_config.json": {"eos_token": {"content": "<|end|>"}, "bos_token": None},
        "generation_config.json": {"eos_token_id": [end, eom, 7]},
    }
    folder = write_tokenizer(tmp_path, files)
    tokenizer = tokenizer_of(folder, N_BPE, bos_token_id=begin, eos_token_id=5)
    assert tokenizer.bos_id == begin
    assert tokenizer.eos_id == end
    assert tokenizer.eom_id == eom
    assert tokenizer.eot_id == 7
    assert all(tokenizer.is_end_of_generation(token) for token in (end, eom, 7))


@pytest.mark.parametrize(
    ("settings", "template", "expected"),
    [
        ({"add_bos_token": True}, False, True),
        ({"add_bos_token": False}, True, False),
        ({}, True, True),
        ({}, False, False),
    ],
)
def test_bos_is_added_when_the_tokenizer_adds_it(
    tmp_path: Path, settings: dict[str, Any], template: bool, expected: bool
) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["llama-bpe"])
    if template:
        single = [{"SpecialToken": {"id": "<|begin|>"}}, {"Sequence": {"id": "A"}}]
        processor = {"type": "TemplateProcessing", "single": single}
        content["post_processor"] = {"type": "Sequence", "processors": [processor]}
    files = {
        "tokenizer.json": content,
        "tokenizer_config.json": {"bos_token": "<|begin|>"} | settings,
    }
    tokenizer = tokenizer_of(write_tokenizer(tmp_path, files), N_BPE)
    assert (tokenizer.encode("a")[0] == tokenizer.bos_id) == expected


def test_a_post_processor_of_another_form_adds_nothing(tmp_path: Path) -> None:
    content = tokenizer_json(PRE_TOKENIZERS["llama-bpe"])
    content["post_processor"] = {"type": "Sequence", "processors": 5}
    folder = write_tokenizer(tmp_path, {"tokenizer.json": content})
    assert not tokenizer_of(folder, N_BPE).vocabulary.add_bos


def test_ends_of_an_answer_may_be_a_list_in_the_config(tmp_path: Path) -> None:
    end, eom = (256 + len(MERGES) + i for i in (1, 2))
    files = {"tokenizer.json": tokenizer_json(PRE_TOKENIZERS["llama-bpe"])}
    folder = write_tokenizer(tmp_path, files)
    tokenizer = tokenizer_of(folder, N_BPE, eos_token_id=[end, eom, 7])
    assert (tokenizer.eos_id, tokenizer.eom_id, tokenizer.eot_id) == (end, eom, 7)


@pytest.mark.parametrize("place", ["string", "list", "file", "json"])
def test_the_chat_template_is_found_in_each_place(tmp_path: Path, place: str) -> None:
    template = "{{ messages }}"
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
    settings = {"string": {"chat_template": template}, "list": {"chat_template": named}}
    files: dict[str, object] = {
        "tokenizer.json": tokenizer_json(PRE_TOKENIZERS["qwen2"]),
        "tokenizer_config.json": settings.get(place, {}),
    }
    folder = write_tokenizer(tmp_path, files)
    if place == "json":
        write_json(folder / "chat_template.json", settings["string"])
    if place == "file":
        (folder / "chat_template.jinja").write_text(template)
    assert read_tokenizer(folder, {"vocab_size": N_BPE})["tokenizer.chat_template"] == template


def test_a_bpe_model_is_converted_with_its_tokenizer(
    tmp_path: Path, tiny_model_path: TinyModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = TinySpec(architecture="qwen2", qkv_bias=True)
    weights = their_weights(load(tiny_model_path(spec)))
    folder = write_folder(tmp_path / "qwen", weights, config_of(spec, "qwen2"))
    (folder / "tokenizer.model").unlink()
    write_json(folder / "tokenizer.json", tokenizer_json(PRE_TOKENIZERS["qwen2"]))
    (tmp_path / "out").mkdir()
    path = convert(folder, tmp_path / "out" / "model.gguf", "Q8_0")
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == spec.vocab_size
    assert tokenizer.decode(tokenizer.encode(TEXTS[2])) == TEXTS[2]
    write_json(folder / "tokenizer.json", tokenizer_json({"type": "BertPreTokenizer"}))
    message = refused(capsys, folder, tmp_path / "out" / "other.gguf")
    assert json.dumps({"type": "BertPreTokenizer"}) in message
