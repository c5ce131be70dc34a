"""Fields of requests that have the same name and meaning in every API."""

from typing import Any, cast

from llamad_client.request import Options
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
    "mirostat_tau",
    "mirostat_eta",
    "dry_multiplier",
    "dry_base",
    "xtc_probability",
    "xtc_threshold",
    "top_n_sigma",
    "dynatemp_range",
    "dynatemp_exponent",
)
_INTEGERS = (
    "top_k",
    "repeat_last_n",
    "mirostat",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "min_tokens",
)
_TEXTS = ("dry_sequence_breakers", "samplers")
LIKELIEST = 1e-6
"""A ``top_p`` that leaves the likeliest token alone: the service's is above 0."""

# Words of OpenAI and Ollama for how hard a model thinks.
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def set_effort(options: Options, body: Fields, name: str) -> None:
    """Set whether and how hard the model thinks, by a word. Raises HttpError.

    ``none``: it does not. A word that nobody knows lets it think.
    """
    word = body.text(name)
    if word is None:
        return
    options["thinking"] = word != "none"
    if word in _EFFORTS:
        options["thinking_effort"] = _EFFORTS[word]


def read_sampling(body: Fields, *limits: str) -> Options:
    """Return the options that a request says. Raises HttpError.

    limits: the fields that bound the tokens of the answer; the smallest counts, and one below 1 is
    no limit but the context.
    """
    options: dict[str, Any] = {name: body.number(name) for name in _NUMBERS}
    for name in _INTEGERS:
        options[name] = body.integer(name, -(1 << 31), (1 << 31) - 1)
    for name in ("top_n_sigma", "top_k"):  # of which less than 0 is llama-server's word for off
        if (options[name] or 0) < 0:
            options[name] = 0
    if options["top_p"] == 0:  # which OpenAI and Anthropic allow
        options["top_p"] = LIKELIEST
    if (options["min_tokens"] or 0) < 0:
        raise body.wrong("min_tokens", "must be at least 0")
    options["ignore_eos"] = body.flag("ignore_eos")
    options |= {name: texts for name in _TEXTS if (texts := body.texts(name))}
    bounds = [body.integer(name, -(1 << 31), (1 << 32) - 1) for name in limits]
    options["max_tokens"] = min((n for n in bounds if n is not None and n > 0), default=None)
    seed = body.integer("seed")
    if seed is not None and seed != -1:  # -1 is any, as for llama-server and Ollama
        options["seed"] = seed % (1 << 64)
    if stop := [text for text in body.texts("stop") if text]:
        options["stop"] = stop
    if bias := _logit_bias(body):
        options["logit_bias"] = bias
    return cast(Options, {name: value for name, value in options.items() if value is not None})


def _logit_bias(body: Fields) -> dict[int, float]:
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


def refuse(body: Fields, *names: str) -> None:
    """Raise HttpError for a field that asks for what is not supported."""
    for name in names:
        if body.get(name) not in (None, False, "", [], {}, 0):
            raise not_supported(body.prefix + name)
