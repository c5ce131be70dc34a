"""A small tokenizer.model, trained once for all tests of this folder."""

import io

import pytest
import sentencepiece

CORPUS = [f"the cat {a} in the {b} hat 12 {a}{b}" for a in "abcdefgh" for b in "stuvwxyz"]


@pytest.fixture(scope="session")
def trained_model() -> bytes:
    """Return a tokenizer.model trained as LLaMA's was: BPE, bytes, split digits, no normalizing."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS),
        model_writer=out,
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["<tool>"],
        minloglevel=2,
    )
    return out.getvalue()
