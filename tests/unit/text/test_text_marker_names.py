"""Where an answer ends, whatever type a file gives the token."""

import pytest

from llamad.text import tokenizer_from_metadata
from unit.text.vocabularies import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    bpe_metadata,
    spm_metadata,
    token_id,
)

ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>", "<|end|>", "<|endoftext|>"),
    *("<|end_of_text|>", "<|end_of_turn|>", "<end_of_turn>", "<turn|>", "<EOT>", "_<EOT>", "[EOT]"),
    *("[EOS]", "<eos>", "</s>", "<end_of_utterance>", "<｜end▁of▁sentence｜>", "[|endofturn|]"),
    *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>", "[e~["),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|END_OF_TURN_TOKEN|>", "<|role_end|>"),
)


@pytest.mark.parametrize("kind", [CONTROL, NORMAL, USER_DEFINED, UNUSED])
@pytest.mark.parametrize("name", ENDS)
def test_a_known_end_ends_the_answer_and_is_never_printed(name: str, kind: int) -> None:
    metadata = bpe_metadata(special=[(name, kind)])
    tokenizer = tokenizer_from_metadata(metadata)
    end = token_id(metadata, name)
    assert [i for i in range(tokenizer.vocab_size) if tokenizer.is_end_of_generation(i)] == [end]
    assert tokenizer.piece(end) == b""
    assert end not in tokenizer.encode(name)
    assert tokenizer.encode(name, parse_special=True) == [end]


@pytest.mark.parametrize("kind", [CONTROL, NORMAL, USER_DEFINED])
def test_a_sentencepiece_vocabulary_does_likewise(kind: int) -> None:
    metadata = spm_metadata(special=[("<|im_end|>", kind)])
    tokenizer = tokenizer_from_metadata(metadata)
    end = token_id(metadata, "<|im_end|>")
    assert tokenizer.is_end_of_generation(end)
    assert tokenizer.is_end_of_generation(2)
    assert tokenizer.piece(end) == b""
    assert end not in tokenizer.encode("<|im_end|>")


@pytest.mark.parametrize("role", ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_a_role_ends_the_answer_whatever_its_name(role: str) -> None:
    metadata = bpe_metadata(special=[("<e>", CONTROL)])
    end = token_id(metadata, "<e>")
    metadata[f"tokenizer.ggml.{role}_token_id"] = end
    assert tokenizer_from_metadata(metadata).vocabulary.end_ids == {end}


@pytest.mark.parametrize("pair", [("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>")])
def test_the_end_of_a_message_that_others_follow_is_none(pair: tuple[str, str]) -> None:
    metadata = bpe_metadata(special=[(name, CONTROL) for name in ("<|end|>", *pair)])
    ends = tokenizer_from_metadata(metadata).vocabulary.end_ids
    assert ends == {token_id(metadata, name) for name in pair}


def test_a_tag_of_html_is_no_end() -> None:
    tags = [(tag, USER_DEFINED) for tag in ("<s>", "</s>", "<strong>", "</strong>")]
    tokenizer = tokenizer_from_metadata(bpe_metadata(special=tags))
    assert tokenizer.vocabulary.end_ids == frozenset()
    assert tokenizer.decode(tokenizer.encode("<s>a</s>")) == "<s>a</s>"


def test_a_marker_that_the_file_calls_text_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    special = [("<|im_start|>", NORMAL), ("<|im_end|>", NORMAL), ("<|x", NORMAL), ("<b>", NORMAL)]
    tokenizer_from_metadata(bpe_metadata(special=special))
    assert [text.split(" tokens=")[1] for text in caplog.messages] == ["2 first=<|im_start|>"]
