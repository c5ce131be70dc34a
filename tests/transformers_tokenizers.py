"""Tiny tokenizers by Hugging Face's tokenizers, as the families of new models have them.

Beside ``transformers_folders.py``, whose models they belong to. Imports nothing of ours. Each gets
``texts.json``: texts, and the ids that the library itself gives them.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

VOCABULARY = 300  # of transformers_folders.SHAPE
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {  # as the folders of these families have them
    "lfm2": _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    + _TAIL,
    "qwen35": _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    + _TAIL,
    "ministral3": rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _TAIL,
}
PATTERNS["lfm2-plain"] = PATTERNS["lfm2"]
WHOLE_WORDS = ("lfm2", "ministral3")  # a word that is a token is taken without merging
MERGES = [
    "Ġ t",
    "h e",
    "Ġt he",
    "i n",
    "a n",
    "1 2",
    "Ġ a",
    "e r",
    "l l",
    "' ll",
    "1 0",
    "12 3",
    "Ġ Ġ",
    "Ċ Ċ",
    "T h",
    "Th e",
    "in g",
    "Ġ th",
    "t h",
    "a t",
    "c at",
]
SPACED_MERGES = [
    "▁ t",
    "h e",
    "▁t he",
    "i n",
    "a n",
    "▁ ▁",
    "▁ a",
    "e r",
    "\n \n",
    "▁▁ ▁▁",
    "c a",
    "ca t",
]
TEXTS = (
    "The thin cat in the hat then ran.",
    "  two spaces, a\ttab\n\nand 12 lines; 12345 101010",
    "they'll say: naïve café — 日本語 🙂 DON'T iPhone",
    "a\n\n\nb  \n c/\n/d",
    "mixedCASEwords McDonald É é",
    " ",
)


def _byte_level(name: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *("".join(merge.split(" ")) for merge in MERGES)]
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    model = models.BPE(
        vocab={t: i for i, t in enumerate(tokens)},
        merges=merges,
        ignore_merges=name in WHOLE_WORDS,
    )
    result = Tokenizer(model)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in PATTERNS:
        cut = pre_tokenizers.Split(Regex(PATTERNS[name]), behavior="isolated")
        result.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_only])
    elif name == "command-r":
        digits = pre_tokenizers.Digits(individual_digits=True)
        result.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        result.normalizer = normalizers.NFC()
    else:
        result.pre_tokenizer = words
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return result


def _spaced() -> Tokenizer:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({c for merge in SPACED_MERGES for c in merge if c != " "})
    tokens += [*letters, *("".join(merge.split(" ")) for merge in SPACED_MERGES)]
    model = models.BPE(
        vocab={t: i for i, t in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in SPACED_MERGES],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    result = Tokenizer(model)
    result.normalizer = normalizers.Replace(" ", "▁")
    result.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    result.add_special_tokens([AddedToken(t, special=True) for t in tokens[:4]])
    result.add_tokens([AddedToken("<|tool_call>", special=False, normalized=False)])
    return result


def write_tokenizer(folder: Path, name: str) -> None:
    """Write tokenizer.json of one family, and what the library makes of the texts."""
    tokenizer = _spaced() if name == "gemma4" else _byte_level(name)
    assert tokenizer.get_vocab_size() <= VOCABULARY
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS}
    (folder / "texts.json").write_text(json.dumps(ids))
