"""Ollama's options, as the service's.

Options of Ollama's own runner, and ``num_ctx``, are taken and change nothing: the context is the
service's, and a prompt that it cannot hold is refused, never cut. A ``keep_alive`` is checked and
changes nothing either: the model stays.
"""

import re

from llamad_client.request import Options
from llamad_http.fields import Fields, kind_of
from llamad_http.formats import schema_of
from llamad_http.sampling import read_sampling, refuse, set_effort

_DURATION = re.compile(r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+|-?\d+")


def read_options(body: Fields) -> Options:
    """Return the options of a request. Raises HttpError."""
    given = body.object("options")
    if given.number("top_p") == 0:  # Ollama's word for off
        given = Fields({**given.values, "top_p": 1.0}, given.prefix)
    check_keep_alive(body)
    options = read_sampling(given, "num_predict")
    if body.get("format") not in (None, "", "json"):
        options["response_format"] = schema_of(body, "format")
    elif body.get("format"):
        options["response_format"] = {"json_object": True}
    return options


def check_keep_alive(body: Fields) -> bool:
    """Return whether the model is to be unloaded: a keep_alive of 0. Raises HttpError."""
    value = body.get("keep_alive")
    if value is None:
        return False
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise body.wrong("keep_alive", f"must be a number or a duration as 5m, is {value!r}")
        return not value.strip("-0nuµmsh.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise body.wrong("keep_alive", f"must be a number or a duration, not {kind_of(value)}")
    return value == 0


def set_thinking(options: Options, body: Fields) -> None:
    """Set whether the model thinks, by ``think``: true, false, or how much. Raises HttpError."""
    think = body.get("think")
    if isinstance(think, bool):
        options["thinking"] = think
    elif think is not None:
        set_effort(options, body, "think")


def refuse_what_is_not_there(body: Fields) -> None:
    """Raise HttpError for what the service has not."""
    refuse(body, "images")
