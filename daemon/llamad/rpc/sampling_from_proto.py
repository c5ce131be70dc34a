"""The sampling of a request: every check of its fields that needs no model.

The ranges are those of ``sampling/parameters.py``; a field outside its range raises the INVALID
error that names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llamad.errors import invalid
from llamad.ranges import Integer, Real
from llamad.sampling.parameters import (
    LOGIT_BIAS,
    MAX_LOGIT_BIASES,
    PARAMETERS,
    SAMPLERS,
    Parameter,
    Sampling,
)
from llamad_api.v1 import llamad_pb2 as pb

MAX_SHORT_TEXTS = 16  # stop strings, sequence breakers
MAX_SHORT_TEXT_BYTES = 256


def checked(name: str, rule: Integer | Real | Parameter, value: float) -> Any:
    """Return the number in the rule's type, or raise the error that names the field."""
    try:
        return rule.check(value)
    except ValueError as error:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise invalid(name, f"is {shown}, {error}") from None


def short_texts(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return a few short texts, or raise the error that names the field."""
    if len(texts) > MAX_SHORT_TEXTS:
        raise invalid(name, f"there are {len(texts)} strings, at most {MAX_SHORT_TEXTS}")
    for i, text in enumerate(texts):
        size = len(text.encode())
        if not 1 <= size <= MAX_SHORT_TEXT_BYTES:
            raise invalid(name, f"string {i} has {size} bytes, must be 1 to {MAX_SHORT_TEXT_BYTES}")
    return tuple(texts)


def to_sampling(message: pb.Sampling, defaults: Sampling) -> Sampling:
    """Return the checked sampling; what the message leaves out is as the defaults say."""
    given = {
        name: checked(name, rule, getattr(message, name))
        for name, rule in PARAMETERS.items()
        if message.HasField(name)
    }
    return replace(
        defaults,
        **given,
        seed=message.seed if message.HasField("seed") else defaults.seed,
        logit_bias=_logit_bias(message.logit_bias) or defaults.logit_bias,
        penalize_prompt=(
            message.penalize_prompt
            if message.HasField("penalize_prompt")
            else defaults.penalize_prompt
        ),
        dry_sequence_breakers=_breakers(message) or defaults.dry_sequence_breakers,
        samplers=_samplers(message.samplers) or defaults.samplers,
    )


def _logit_bias(given: Mapping[int, float]) -> Mapping[int, float]:
    if len(given) > MAX_LOGIT_BIASES:
        raise invalid("logit_bias", f"there are {len(given)} entries, at most {MAX_LOGIT_BIASES}")
    for token, bias in given.items():
        if token < 0:
            raise invalid("logit_bias", f"token {token} is negative")
        checked("logit_bias", LOGIT_BIAS, bias)
    return dict(given)


def _breakers(message: pb.Sampling) -> tuple[str, ...]:
    texts = tuple(message.dry_sequence_breakers)
    return texts if texts == ("",) else short_texts("dry_sequence_breakers", texts)


def _samplers(names: Sequence[str]) -> tuple[str, ...]:
    for i, name in enumerate(names):
        if name not in SAMPLERS:
            raise invalid("samplers", f"{name[:32]!r} is none of {', '.join(SAMPLERS)}")
        if name in names[:i]:
            raise invalid("samplers", f"{name} is there twice")
    return tuple(names)
