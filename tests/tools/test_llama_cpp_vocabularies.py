"""Whole vocabularies that llama.cpp keeps, against the ids that go with them.

``tests/unit/text/test_text_golden.py`` has excerpts of some. Needs ``build/llama-cpp``, which
``make peer`` fetches.
"""

import pytest

from golden_files import read_cases
from llama_cpp_source import FOLDER, MISSING
from llamad.engine.bindings import read_metadata
from llamad.errors import ErrorKind, LlamadError
from llamad.text import load_tokenizer, tokenizer_from_metadata

if not FOLDER.exists():
    pytest.skip(MISSING, allow_module_level=True)

SUPPORTED = {
    *("command-r", "deepseek-coder", "falcon", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3"),
    *("gemma-4", "qwen2", "qwen35", "refact", "starcoder"),
}
WORDS = {"bert-bge"}  # a text does not come back as it was
REFUSED = {  # what the refusal names
    "aquila": "tokenizer.ggml.pre is missing",
    "deepseek-llm": "'deepseek-llm'",
    "gpt-neox": "tokenizer.ggml.pre is missing",
}
WITHOUT_IDS = {"baichuan", "nomic-bert-moe"}  # they load, and nobody says what their ids are


def test_every_vocabulary_of_llama_cpp_is_in_this_file() -> None:
    found = {path.stem.removeprefix("ggml-vocab-") for path in FOLDER.glob("ggml-vocab-*.gguf")}
    assert found == SUPPORTED | WORDS | set(REFUSED) | WITHOUT_IDS


@pytest.mark.parametrize("name", sorted(SUPPORTED | WORDS))
def test_every_id_is_identical(name: str) -> None:
    path = FOLDER / f"ggml-vocab-{name}.gguf"
    tokenizer = load_tokenizer(path)
    found = read_cases(path.with_name(path.name + ".inp"), path.with_name(path.name + ".out"))
    assert len(found) >= 46
    for text, expected in found:
        tokens = tokenizer.encode(text, add_bos=False)
        assert tokens == expected, repr(text)
        assert name in WORDS or tokenizer.decode(tokens) == text


def test_a_unigram_vocabulary_changes_characters_as_its_map_says() -> None:
    tokenizer = load_tokenizer(FOLDER / "ggml-vocab-nomic-bert-moe.gguf")
    assert tokenizer.encode("Hello  world") == [0, 35378, 8999, 2]  # XLM-RoBERTa's
    assert tokenizer.decode(tokenizer.encode("ﬁne ①")) == "fine 1"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_others_are_refused_by_name(name: str) -> None:
    metadata = read_metadata(FOLDER / f"ggml-vocab-{name}.gguf")
    with pytest.raises(LlamadError, match=REFUSED[name]) as caught:
        tokenizer_from_metadata(metadata)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.STATE, "TOKENIZER_UNSUPPORTED")
