"""Pre-tokenizers: how a byte-level BPE family cuts text into words before merging.

A cut is a regular expression: its matches are words, and so is what lies between two of them. A
family that has several applies each to the words of the one before, as if each were a text. The
patterns are those the model families publish in their tokenizer.json; a wrong one gives plausible
but wrong ids, so a name that is not in the table is refused, never guessed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import regex

from llamad.printable import quoted
from llamad.text.vocabulary import unsupported

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE_CONTRACTIONS = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"

_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"

# First each digit alone, then GPT-2's cut of what lies between. As one expression, which is faster,
# a digit ends the white space before it the way the end of the text does.
_SINGLE_DIGITS = (
    rf"{_CONTRACTIONS}| ?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?![^\s\p{{N}}])|\s+"
)

_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    rf"{_ANY_CASE_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACE}"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    rf"{_ANY_CASE_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACE}"
)
_SEED = _QWEN2.replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}]+")

# A word in cases: capitals, then small letters. Letters without case, and marks, count as both.
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+(?:{_ANY_CASE_CONTRACTIONS})?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*(?:{_ANY_CASE_CONTRACTIONS})?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"
)

_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    rf"|{_SPACE}",
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_FALCON = (r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9]{3}")
_MINICPM5 = (r"\p{N}{1,3}", _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+"))


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How one family cuts text, and what else its tokenizer does by default."""

    cuts: tuple[str, ...]  # patterns of the ``regex`` library
    whole_words_first: bool = False  # a word that is a token needs no merges
    add_bos: bool = False  # when the metadata does not say

    def words(self, text: str) -> Iterator[str]:
        """Return the words of ``text`` in order; joined they are the text."""
        words: Iterator[str] = iter((text,))
        for pattern in self.cuts:
            words = _cut(regex.compile(pattern), words)  # compiled once, then cached
        return words


def _cut(pattern: regex.Pattern[str], texts: Iterable[str]) -> Iterator[str]:
    """Yield the matches in each of ``texts`` and what lies between them."""
    for text in texts:
        if len(text) == 1:
            yield text
            continue
        position = 0
        for match in pattern.finditer(text):
            start, end = match.span()
            if start > position:
                yield text[position:start]
            yield text[start:end]
            position = end
        if position < len(text):
            yield text[position:]


def _named(cuts: str | tuple[str, ...], *names: str, **facts: bool) -> dict[str, PreTokenizer]:
    cuts = (cuts,) if isinstance(cuts, str) else cuts
    return dict.fromkeys(names, PreTokenizer(cuts, **facts))


# Names that share a cut are those of llama.cpp's llama-vocab.cpp. Left out: jina-v1-en,
# jina-v2-code and roberta-bpe, whose models are encoders that want a separator behind the text.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **_named(
        _GPT2,
        *("a.x-4.0", "exaone4", "gigachat", "gpt-2", "granite-docling", "jais", "jina-de"),
        *("jina-es", "jina-v2-de", "jina-v2-es", "mellum", "modern-bert", "mpt", "olmo", "phi-2"),
        "trillion",
    ),
    **_named(
        _SINGLE_DIGITS,
        *("codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact", "smollm"),
        "starcoder",
    ),
    **_named(
        _LLAMA3,
        *("falcon-h1", "falcon3", "jina-v5-nano", "lfm2", "llama-bpe", "llama-v3", "llama3"),
        *("midm-2.0", "pixtral"),
        whole_words_first=True,
        add_bos=True,
    ),
    **_named(_LLAMA3, "chatglm-bpe", "dbrx", "smaug-bpe"),
    **_named(_LLAMA3, "glm4", "glm5", whole_words_first=True),
    **_named(
        _QWEN2,
        *("deepseek-r1-qwen", "f2llmv2", "grok-2", "hunyuan", "kormo", "megrez", "qwen2"),
        *("solar-open", "stablelm2"),
    ),
    **_named(_QWEN35, "qwen35"),
    **_named(_SEED, "seed-coder"),
    **_named(_TEKKEN, "tekken", whole_words_first=True, add_bos=True),
    **_named(_GPT4O, "gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"),
    **_named(_DEEPSEEK_V3, "deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"),
    **_named(_DEEPSEEK_CODER, "deepseek-coder"),
    **_named(_FALCON, "falcon"),
    **_named(_MINICPM5, "minicpm5", whole_words_first=True),
}


def pre_tokenizer(name: str | None) -> PreTokenizer:
    """Return the pre-tokenizer of ``tokenizer.ggml.pre``. Raises STATE, TOKENIZER_UNSUPPORTED."""
    if name is None:
        raise unsupported(
            "tokenizer.ggml.pre is missing: the pre-tokenizer of the model is not known"
        )
    found = PRE_TOKENIZERS.get(name)
    if found is None:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise unsupported(
            f"pre-tokenizer {quoted(name)} (tokenizer.ggml.pre) is not supported, only {known}"
        )
    return found
