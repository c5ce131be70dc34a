"""Real vocabularies against ids from their reference implementations.

Needs what is no part of a clone: the golden files (``$LLAMAD_SHARED``, or ``shared`` beside the
checkout) and, for the chats, the demo model (``$LLAMAD_DEMO_MODEL``, or ``models/``). Without them
these tests skip; the other tests of this folder cover the same rules on small vocabularies.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from llamad.engine.bindings import read_metadata
from llamad.text import ChatTemplate, Tokenizer, load_tokenizer, tokenizer_from_metadata

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(os.environ.get("LLAMAD_SHARED", ROOT.parent / "shared")) / "golden"
GOLDEN_CHATS = GOLDEN / "smollm2-135m-q4_1.json"
DEMO_MODEL = Path(
    os.environ.get("LLAMAD_DEMO_MODEL", ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
)

needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden files at {GOLDEN}")
needs_model = pytest.mark.skipif(
    not (GOLDEN_CHATS.exists() and DEMO_MODEL.exists()), reason=f"no demo model at {DEMO_MODEL}"
)


def cases(name: str) -> list[tuple[str, list[int]]]:
    """Return (text, ids) of a vocabulary's .inp and .out files."""
    stem = GOLDEN / "vocab" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    lines = Path(f"{stem}.out").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [
        (text, [int(token) for token in line.split()])
        for text, line in zip(texts, lines, strict=True)
    ]


def vocabulary(name: str) -> Tokenizer:
    return load_tokenizer(GOLDEN / "vocab" / f"ggml-vocab-{name}.gguf")


@needs_golden
@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "llama-bpe"])
def test_every_case_of_a_vocabulary_is_identical(name: str) -> None:
    tokenizer = vocabulary(name)
    found = cases(name)
    assert len(found) == 46
    for text, expected in found:
        assert tokenizer.encode(text, add_bos=False) == expected, repr(text)
        assert tokenizer.decode(expected) == text


@needs_golden
def test_the_rebuilt_vocabulary_agrees_with_the_original_sentencepiece_model() -> None:
    original = SentencePieceProcessor(model_file=str(GOLDEN / "llama2-tokenizer.model"))
    rebuilt = vocabulary("llama-spm")
    texts = [text for text, _ in cases("llama-spm")]
    texts.append((GOLDEN / "passage.txt").read_text(encoding="utf-8"))
    for text in texts:
        assert rebuilt.encode(text, add_bos=False) == original.EncodeAsIds(text), repr(text)


@pytest.fixture(scope="module")
def demo() -> tuple[Tokenizer, ChatTemplate, dict[str, Any]]:
    metadata = read_metadata(DEMO_MODEL)
    tokenizer = tokenizer_from_metadata(metadata)
    golden: dict[str, Any] = json.loads(GOLDEN_CHATS.read_text(encoding="utf-8"))
    return tokenizer, ChatTemplate.from_metadata(metadata, tokenizer), golden


@needs_model
def test_passage_and_prompts_of_the_demo_model_are_identical(
    demo: tuple[Tokenizer, ChatTemplate, dict[str, Any]],
) -> None:
    tokenizer, _, golden = demo
    for case in [golden["passage"], *golden["prompts"]]:
        assert tokenizer.encode(case["text"]) == case["tokens"]


@needs_model
def test_chats_of_the_demo_model_are_identical(
    demo: tuple[Tokenizer, ChatTemplate, dict[str, Any]],
) -> None:
    tokenizer, template, golden = demo
    for case in golden["chats"]:
        assert template.render(case["messages"]) == case["rendered"]
        assert tokenizer.encode(case["rendered"], parse_special=True) == case["tokens"]


@needs_model
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
