"""Llama 3's tokenizer.model: a token in base64 and its rank a line, as tiktoken reads them.

Special tokens are not in the file but in Meta's code (llama3/tokenizer.py, and llama-models'
models/llama3/tokenizer.py for Llama 3.1 and later): 256 ids after the last rank.
"""

import base64
import binascii
from pathlib import Path

from llamad.text.bpe import spelled
from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.source import Metadata, corrupt

_MAX_FILE_BYTES, _MAX_TOKEN_BYTES = 64 << 20, 1024
_N_SPECIAL = 256
_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
_END_OF_TURN, _END_OF_MESSAGE = "<|eot_id|>", "<|eom_id|>"
_RESERVED = "<|reserved_special_token_{}|>"
_HEADER = ("<|start_header_id|>", "<|end_header_id|>")

_LLAMA_3 = (
    _BEGIN,
    _END,
    *map(_RESERVED.format, range(4)),
    *_HEADER,
    _RESERVED.format(4),
    _END_OF_TURN,
    *map(_RESERVED.format, range(5, 251)),
)
_LLAMA_3_1 = (
    _BEGIN,
    _END,
    *map(_RESERVED.format, range(2)),
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    *_HEADER,
    _END_OF_MESSAGE,
    _END_OF_TURN,
    "<|python_tag|>",
    *map(_RESERVED.format, range(2, 247)),
)


def read_tiktoken(path: Path, *, is_llama_3_1: bool) -> Metadata:
    """Return the tokenizer's metadata; is_llama_3_1: or later, which renamed special tokens.

    Raises LlamadError CHECKPOINT_CORRUPT that names the line.
    """
    ranked = _read_ranks(path)
    special = _LLAMA_3_1 if is_llama_3_1 else _LLAMA_3
    tokens = [*map(spelled, ranked), *special]
    result: Metadata = {
        PREFIX + "model": "gpt2",
        PREFIX + "pre": "llama-bpe",
        PREFIX + "tokens": tokens,
        PREFIX + "token_type": [
            *[int(TokenType.NORMAL)] * len(ranked),
            *[int(TokenType.CONTROL)] * _N_SPECIAL,
        ],
        PREFIX + "merges": _merges(ranked),
        PREFIX + "add_bos_token": True,
    }
    roles = {"bos": _BEGIN, "eos": _END, "eot": _END_OF_TURN, "eom": _END_OF_MESSAGE}
    for role, text in roles.items():
        if text in special:
            result[f"{PREFIX}{role}_token_id"] = len(ranked) + special.index(text)
    return result


def _read_ranks(path: Path) -> list[bytes]:
    """Return the tokens in the order of their ranks, which are 0, 1, 2 and so on."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise corrupt(path, f"is larger than {_MAX_FILE_BYTES} bytes: no tokenizer.model")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise corrupt(path, error.strerror or "cannot be read") from None
    tokens: list[bytes] = []
    for number, line in enumerate(lines, start=1):
        encoded, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            token = b""
        if not 0 < len(token) <= _MAX_TOKEN_BYTES or rank != str(len(tokens)).encode():
            raise corrupt(
                path,
                f"is neither a sentencepiece model nor one of Llama 3's: line {number} is "
                f"{line[:80]!r}, not a token in base64 and its rank {len(tokens)}",
            )
        tokens.append(token)
    if missing := set(range(256)) - {token[0] for token in tokens if len(token) == 1}:
        raise corrupt(
            path,
            "is neither a sentencepiece model nor one of Llama 3's: it has no token for byte "
            f"{min(missing):#04x}",
        )
    return tokens


def _merges(ranked: list[bytes]) -> list[str]:
    """Return every pair of tokens that makes a token, as "left right", best rank first.

    tiktoken merges the two neighbours whose joined bytes have the best rank, whatever the two are.
    """
    ranks = {token: rank for rank, token in enumerate(ranked)}
    result = []
    for token in ranked:
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        result += [f"{spelled(left)} {spelled(right)}" for left, right in pairs]
    return result
