"""Pre-tokenizers: how a byte-level BPE family cuts text into words before merging.

A cut is a regular expression whose matches cover the text. The patterns are those the model
families publish in their tokenizer.json; a wrong one gives plausible but wrong ids, so a name
that is not in the table is refused, never guessed.
"""

from dataclasses import dataclass

from llamad.text.vocabulary import unsupported

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE_CONTRACTIONS = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"

_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"

# First each digit alone, then GPT-2's cut of what lies between: as one expression, a digit ends the
# white space before it the way the end of the text does.
_SINGLE_DIGITS = (
    rf"{_CONTRACTIONS}| ?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?![^\s\p{{N}}])|\s+"
)

_LLAMA3 = (
    rf"{_ANY_CASE_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How one family cuts text, and what else its tokenizer does by default."""

    pattern: str  # of the ``regex`` library
    whole_words_first: bool = False  # a word that is a token needs no merges
    add_bos: bool = False  # when the metadata does not say


_LLAMA3_FAMILY = PreTokenizer(_LLAMA3, whole_words_first=True, add_bos=True)

PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(_GPT2),
    "llama-bpe": _LLAMA3_FAMILY,
    "llama3": _LLAMA3_FAMILY,
    "llama-v3": _LLAMA3_FAMILY,
    "falcon3": _LLAMA3_FAMILY,
    "dbrx": PreTokenizer(_LLAMA3),
    "smaug-bpe": PreTokenizer(_LLAMA3),
    "smollm": PreTokenizer(_SINGLE_DIGITS),
    "starcoder": PreTokenizer(_SINGLE_DIGITS),
    "qwen2": PreTokenizer(_QWEN2),
    "deepseek-r1-qwen": PreTokenizer(_QWEN2),
    # Other names of the same cuts (llama.cpp's llama-vocab.cpp).
    **dict.fromkeys(("falcon-h1", "jina-v5-nano", "lfm2", "midm-2.0", "pixtral"), _LLAMA3_FAMILY),
    **dict.fromkeys(
        ("f2llmv2", "hunyuan", "kormo", "megrez", "solar-open", "stablelm2"),
        PreTokenizer(_QWEN2),
    ),
    **dict.fromkeys(
        ("codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact"),
        PreTokenizer(_SINGLE_DIGITS),
    ),
    **dict.fromkeys(
        (
            *("a.x-4.0", "exaone4", "gigachat", "granite-docling", "jais", "jina-de", "jina-es"),
            *("jina-v2-de", "jina-v2-es", "mellum", "modern-bert", "mpt", "olmo", "phi-2"),
            "trillion",
        ),
        PreTokenizer(_GPT2),
    ),
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
            f"pre-tokenizer {name!r} (tokenizer.ggml.pre) is not supported, only {known}"
        )
    return found
