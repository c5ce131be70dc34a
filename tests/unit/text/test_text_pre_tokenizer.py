"""How each family cuts text into words, and the refusal of families that are not known."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from llamad.errors import ErrorKind, LlamadError
from llamad.text.pre_tokenizer import PRE_TOKENIZERS, pre_tokenizer

MIXED = st.text(st.sampled_from("a éΩ1٣\t\n\r  '’stRE.,!我🦙\u0301\u00a0\u3000"), max_size=30)


def words(name: str, text: str) -> list[str]:
    return list(pre_tokenizer(name).words(text))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "I'm 333 y'ALL", ["I", "'m", " 333", " y", "'", "ALL"]),
        ("gpt-2", "a  b \n", ["a", " ", " b", " \n"]),
        ("gpt-2", "go!!\n\nOK", ["go", "!!", "\n", "\n", "OK"]),
        ("llama-bpe", "I'M 12345 .ok", ["I", "'M", " ", "123", "45", " .", "ok"]),
        ("llama-bpe", "go!!\n\n OK  x", ["go", "!!\n\n", " OK", " ", " x"]),
        ("llama-bpe", "a \n \n b", ["a", " \n \n", " b"]),
        ("smollm", "a 33  4 it's", ["a", " ", "3", "3", "  ", "4", " it", "'s"]),
        ("qwen2", "I'VE 123\n", ["I", "'VE", " ", "1", "2", "3", "\n"]),
        ("qwen2", "(hi)", ["(hi", ")"]),
        ("qwen2", "e\u0301a", ["e", "\u0301a"]),
        ("qwen35", "e\u0301a 12", ["e\u0301a", " ", "1", "2"]),
        ("qwen35", "a \u0301b", ["a", " \u0301b"]),
        ("seed-coder", "go!!\n12", ["go", "!!", "\n", "1", "2"]),
        ("tekken", "HelloWorld's 12", ["Hello", "World", "'s", " ", "1", "2"]),
        ("gpt-4o", "HELLOworld'S 1234", ["HELLOworld'S", " ", "123", "4"]),
        ("gpt-4o", "DoIt ok//\n/x", ["Do", "It", " ok", "//\n/", "x"]),
        ("tekken", "ABC 我们a", ["ABC", " 我们a"]),
        ("deepseek-v3", "12345我们abc", ["123", "45", "我们", "abc"]),
        ("deepseek-v3", "a.b (c) !!\n", ["a", ".b", " (", "c", ")", " !!\n"]),
        ("deepseek-v3", "a\0\0b", ["a", "\0", "\0b"]),
        ("deepseek-coder", "a  b\n12", ["a", " ", " b", "\n", "1", "2"]),
        ("falcon", "a $12345", ["a", " ", "$", "123", "45"]),
        ("minicpm5", "I'M 1234", ["I", "'M", " ", "123", "4"]),
    ],
)
def test_words_of_a_family(name: str, text: str, expected: list[str]) -> None:
    assert words(name, text) == expected


@pytest.mark.parametrize(
    ("name", "known"),
    [
        *(("lfm2", "llama-bpe"), ("grok-2", "qwen2"), ("refact", "smollm"), ("phi-2", "gpt-2")),
        *(("llama4", "gpt-4o"), ("hunyuan-dense", "deepseek-v3"), ("chatglm-bpe", "dbrx")),
    ],
)
def test_other_names_of_a_cut(name: str, known: str) -> None:
    assert pre_tokenizer(name) == pre_tokenizer(known)


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
@given(text=MIXED)
def test_words_joined_are_the_text(name: str, text: str) -> None:
    assert "".join(words(name, text)) == text


@given(text=MIXED)
def test_smollm_is_single_digits_then_gpt_2(text: str) -> None:
    in_two_steps = [
        word
        for part in regex.splititer(r"(\p{N})", text)
        for word in ([part] if regex.fullmatch(r"\p{N}", part) else words("gpt-2", part))
    ]
    assert words("smollm", text) == in_two_steps


@pytest.mark.parametrize("name", ["llama3", "llama-v3"])
def test_other_names_of_llama_3_are_the_same(name: str) -> None:
    assert pre_tokenizer(name) == pre_tokenizer("llama-bpe")


@pytest.mark.parametrize("name", ["dbrx", "smaug-bpe"])
def test_some_cut_as_llama_3_and_merge_every_word(name: str) -> None:
    assert pre_tokenizer(name).cuts == pre_tokenizer("llama-bpe").cuts
    assert not pre_tokenizer(name).whole_words_first
    assert not pre_tokenizer(name).add_bos


@pytest.mark.parametrize(
    ("name", "named"),
    [("deepseek-llm", "'deepseek-llm'"), ("roberta-bpe", "'roberta-bpe'"), (None, "is missing")],
)
def test_an_unknown_family_is_refused_by_name(name: str | None, named: str) -> None:
    with pytest.raises(LlamadError, match=named) as caught:
        pre_tokenizer(name)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.STATE, "TOKENIZER_UNSUPPORTED")
