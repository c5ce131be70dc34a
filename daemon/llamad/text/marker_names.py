"""Tokens known by their names: what ends an answer, and what marks turns and tools.

Converters give such tokens any type, so the name decides. The names that end an answer are those
of the model families' published templates and of llama.cpp's ``special_eog_ids``. Knows no ids:
roles that a file's metadata names are ``vocabulary.py``'s.
"""

import re
from collections.abc import Container

_END_NAMES = frozenset(
    {
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>", "<|end|>"),
        *("<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>"),
        *("<end_of_turn>", "<turn|>", "<|tool_response>", "<eos>", "<end_of_utterance>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|role_end|>", "[|endofturn|]"),
        *("<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<｜end▁of▁sentence｜>"),
        # of a file or a repository, where a completion of code ends
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|file_sep|>"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    }
)
_END_OF_SEQUENCE = "</s>"
_STRIKE_THROUGH = "</strong>"  # a vocabulary of HTML has </s> as another tag of it (Gemma)

# In these families <|end|> ends a message, and more of the answer follows.
_GOES_ON = (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"))

_TEMPLATE_MARKER = re.compile(r"<\|[^\s<>|]+\|>|<｜[^<>｜]+｜>|\[\|[^\s\[\]|]+\|\]|<\w+_of_turn>")
_MARKER = re.compile(
    rf"{_TEMPLATE_MARKER.pattern}|<\|[^\s<>]+>|<[^\s<>]+\|>|<</?SYS>>|\[/?[A-Z][A-Z_]+\]"
    r"|</?[A-Za-z]+(?:_[A-Za-z0-9]+)+>|</?(?:system|user|assistant|human|bot|tools?)>"
)
_BRACKETED = re.compile(r"<\S+>|\[\S+\]")
_REASONING = frozenset({"<think>", "</think>", "[THINK]", "[/THINK]"})


def is_end(name: str, vocabulary: Container[str]) -> bool:
    """Whether an answer ends with the token of this name.

    vocabulary: the other names that there are, at least those that begin as markers do.
    """
    if name == _END_OF_SEQUENCE:
        return _STRIKE_THROUGH not in vocabulary
    if name == "<|end|>":
        return not any(all(other in vocabulary for other in pair) for pair in _GOES_ON)
    return name in _END_NAMES


def is_template_marker(name: str) -> bool:
    """Whether no text but a template's is spelled like this, so that the token is no plain text."""
    return _TEMPLATE_MARKER.fullmatch(name) is not None


def is_marker(name: str, template: str) -> bool:
    """Whether a token marks turns or tools: it looks so, or the template's source contains it.

    Reasoning is none: an answer may contain it, and templates look for it there.
    """
    if name in _REASONING:
        return False
    return bool(_MARKER.fullmatch(name) or (_BRACKETED.fullmatch(name) and name in template))
