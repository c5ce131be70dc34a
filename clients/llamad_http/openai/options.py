"""OpenAI's sampling fields, and those that llama-server adds to them, as the service's options."""

from typing import Any, cast

from llamad_client.request import Options
from llamad_http.completion import MAX_TEXTS
from llamad_http.errors import not_supported
from llamad_http.fields import Fields, kind_of

_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_INTEGERS = ("top_k", "repeat_last_n")


def read_options(body: Fields) -> Options:
    """Return the options of a chat or a completion. Raises HttpError."""
    options: dict[str, Any] = {}
    for name in _NUMBERS:
        options[name] = body.number(name)
    for name in _INTEGERS:
        options[name] = body.integer(name, -(1 << 31), (1 << 31) - 1)
    limits = [
        limit
        for name in ("max_tokens", "max_completion_tokens")
        # -1 is llama-server's word for no limit
        if (limit := body.integer(name, -1, (1 << 32) - 1)) is not None and limit != -1
    ]
    options["max_tokens"] = min(limits, default=None)
    seed = body.integer("seed")
    if seed is not None and seed != -1:  # -1 is llama-server's word for any
        options["seed"] = seed % (1 << 64)
    if stop := [text for text in body.texts("stop") if text]:
        options["stop"] = stop
    if bias := read_logit_bias(body):
        options["logit_bias"] = bias
    return cast(Options, {name: value for name, value in options.items() if value is not None})


def read_logit_bias(body: Fields) -> dict[int, float]:
    """Return the biases by token: an object, or llama-server's list of pairs. Raises HttpError."""
    value = body.get("logit_bias")
    if value is None:
        return {}
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value):
        pairs = [(token, bias) for token, bias in value]
    else:
        message = f"must be an object from token to number, not {kind_of(value)}"
        raise body.wrong("logit_bias", message)
    biases = {}
    for token, bias in pairs:
        name = f"logit_bias.{token}"
        number = Fields({name: -100.0 if bias is False else bias}, body.prefix).number(name)
        try:
            biases[int(token)] = number or 0.0
        except (TypeError, ValueError):
            raise body.wrong(name, "must be the number of a token") from None
    return biases


def read_n(body: Fields) -> int:
    """Return how many answers are wanted. Raises HttpError."""
    return body.integer("n", 1, MAX_TEXTS) or 1


def refuse(body: Fields, *names: str) -> None:
    """Raise HttpError for a field that asks for what is not supported."""
    for name in names:
        if body.get(name) not in (None, False, [], {}, 0):
            raise not_supported(name)
