"""What a request to ``/completion`` says in texts where the service wants tokens.

A prompt is a text, tokens, both in turns, or an object with a text; a list of such asks for as
many answers. A bias may name a text, and is then that of each of its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llamad_client import ClientError
from llamad_http.completion import MAX_TEXTS
from llamad_http.errors import from_client_error
from llamad_http.fields import Fields
from llamad_http.gateway import Gateway
from llamad_http.sampling import refuse

Prompt = str | list[int]

MAX_PARTS = 256
"""Texts among the parts of a prompt, or among the biases: each is a call of the service."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a request. is_list: there is a list of answers, also where it is of one."""

    each: list[Prompt]
    is_list: bool


async def read_prompts(gateway: Gateway, body: Fields) -> Prompts:
    """Return the prompts of a request. Raises HttpError."""
    value = body.get("prompt")
    is_list = isinstance(value, list) and not any(type(part) is int for part in value)
    if not is_list:
        return Prompts([await _read_prompt(gateway, body, "prompt")], False)
    if not 0 < len(value) <= MAX_TEXTS:
        raise body.wrong("prompt", f"must be a list of 1 to {MAX_TEXTS} prompts")
    entries = Fields({f"prompt[{n}]": entry for n, entry in enumerate(value)}, body.prefix)
    return Prompts([await _read_prompt(gateway, entries, name) for name in entries.values], True)


async def _read_prompt(gateway: Gateway, holder: Fields, name: str) -> Prompt:
    value = holder.get(name)
    prompt: Prompt | None
    if isinstance(value, dict):
        entry = holder.object(name)
        refuse(entry, "multimodal_data")
        prompt = entry.text("prompt_string")
    elif isinstance(value, list) and any(isinstance(part, str) for part in value):
        _check_texts(holder, name, value)
        parts = Fields({f"{name}[{n}]": part for n, part in enumerate(value)}, holder.prefix)
        prompt = []
        for part in parts.values:
            if isinstance(parts.get(part), str):
                text = parts.text(part) or ""
                prompt += await tokens_of(gateway, text, add_bos=not prompt)
            else:
                prompt += Fields({part: [parts.get(part)]}, parts.prefix).tokens(part)
    else:
        prompt = holder.tokens(name) if isinstance(value, list) else holder.text(name)
    if not prompt:
        raise holder.wrong(name, "must be a text or a list of tokens that is not empty")
    return prompt


async def with_token_biases(gateway: Gateway, body: Fields) -> Fields:
    """Return the fields with every bias by a token's number. Raises HttpError."""
    value = body.get("logit_bias")
    pairs: list[Any] = list(value.items()) if isinstance(value, dict) else value or []
    if not isinstance(pairs, list):
        return body  # it is refused where the biases are read
    texts = [pair[0] for pair in pairs if _is_of_text(pair)]
    _check_texts(body, "logit_bias", texts)
    biases: list[Any] = []
    for pair in pairs:
        match pair:
            case [text, bias] if _is_of_text(pair):
                tokens = await tokens_of(gateway, text, add_bos=False)
                biases += [[token, bias] for token in tokens]
            case _:
                biases.append(list(pair) if isinstance(pair, tuple) else pair)
    return Fields({**body.values, "logit_bias": biases}, body.prefix)


def _is_of_text(pair: Any) -> bool:
    """Whether a bias names a text, and no token's number."""
    match pair:
        case [str(text), _]:
            return not (text.isascii() and text.isdigit())
    return False


def _check_texts(body: Fields, name: str, parts: Sequence[Any]) -> None:
    n_texts = sum(isinstance(part, str) for part in parts)
    if n_texts > MAX_PARTS:
        raise body.wrong(name, f"has {n_texts} texts, at most {MAX_PARTS}")


async def tokens_of(gateway: Gateway, text: str, *, add_bos: bool) -> list[int]:
    """Return the tokens of a text. Raises HttpError."""
    try:
        pieces = await gateway.client.token_pieces(text, add_bos=add_bos, parse_special=True)
    except ClientError as error:
        raise from_client_error(error) from None
    return [token for token, _ in pieces]
