"""Real vocabularies against ids from their reference implementations."""

import json
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from golden_files import (
    DEMO_FIGURES,
    DEMO_MODEL,
    PASSAGE,
    SENTENCEPIECE_MODEL,
    cases,
    excerpt,
    needs_demo_model,
)
from llamad.engine.bindings import read_metadata
from llamad.text import ChatTemplate, Tokenizer, tokenizer_from_metadata


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "llama-bpe", "qwen35", "falcon"])
def test_every_case_of_a_vocabulary_is_identical(name: str) -> None:
    vocabulary = excerpt(name)
    tokenizer = tokenizer_from_metadata(vocabulary.metadata)
    found = cases(name)
    assert len(found) == (50 if name == "qwen35" else 46)
    for text, expected in found:
        tokens = tokenizer.encode(text, add_bos=False)
        assert vocabulary.original(tokens) == expected, repr(text)
        assert tokenizer.decode(tokens) == text


def test_the_rebuilt_vocabulary_agrees_with_the_original_sentencepiece_model() -> None:
    original = SentencePieceProcessor(model_file=str(SENTENCEPIECE_MODEL))
    rebuilt = tokenizer_from_metadata(excerpt("llama-spm").metadata)
    texts = [text for text, _ in cases("llama-spm")]
    texts.append(PASSAGE.read_text(encoding="utf-8"))
    for text in texts:
        assert rebuilt.encode(text, add_bos=False) == original.EncodeAsIds(text), repr(text)


@pytest.fixture(scope="module")
def demo() -> tuple[Tokenizer, ChatTemplate, dict[str, Any]]:
    metadata = read_metadata(DEMO_MODEL)
    tokenizer = tokenizer_from_metadata(metadata)
    golden: dict[str, Any] = json.loads(DEMO_FIGURES.read_text(encoding="utf-8"))
    return tokenizer, ChatTemplate.from_metadata(metadata, tokenizer), golden


@needs_demo_model
def test_passage_and_prompts_of_the_demo_model_are_identical(
    demo: tuple[Tokenizer, ChatTemplate, dict[str, Any]],
) -> None:
    tokenizer, _, golden = demo
    for case in [golden["passage"], *golden["prompts"]]:
        assert tokenizer.encode(case["text"]) == case["tokens"]


@needs_demo_model
def test_chats_of_the_demo_model_are_identical(
    demo: tuple[Tokenizer, ChatTemplate, dict[str, Any]],
) -> None:
    tokenizer, template, golden = demo
    for case in golden["chats"]:
        assert template.render(case["messages"]) == case["rendered"]
        assert tokenizer.encode(case["rendered"], parse_special=True) == case["tokens"]


@needs_demo_model
def test_chats_differ_from_the_golden_ids_only_by_what_a_message_must_not_do(
    demo: tuple[Tokenizer, ChatTemplate, dict[str, Any]],
) -> None:
    """The golden ids take ``<|im_end|>`` in a message for the token; the service does not."""
    tokenizer, template, golden = demo
    for case in golden["chats"]:
        tokens = template.encode(case["messages"])
        if any("<|im_end|>" in message["content"] for message in case["messages"]):
            ends = [token for token in tokens if token == tokenizer.eos_id]
            assert len(ends) == len(case["messages"]) + 1  # the template adds a system message
            assert tokenizer.decode(tokens, special=True) == case["rendered"]
        else:
            assert tokens == case["tokens"]
