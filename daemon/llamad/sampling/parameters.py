"""The sampling parameters: the one table of their names, types, defaults, ranges and meanings.

The fields of ``Sampling`` are the table. The configuration and the validation of requests use it;
generation.proto, the struct of the engine, the default configuration file, the man pages and the
flags of llamactl say the same, and ``tests/unit/test_sampling_parameters.py`` compares them with
it. What the parameters do to the logits is the engine's (native/src/sample).
"""

import ctypes
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from llamad.ranges import Boolean, Integer, Real


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number of ``Sampling``. off: the value that changes nothing; None: there is none."""

    range: Integer | Real
    off: float | None
    meaning: str  # one sentence, for people

    def check(self, value: object) -> float:
        """Return the number in its final type; raise ValueError saying what is allowed.

        The engine holds float32, so a number has to be in range in that precision too.
        """
        number = self.range.check(value)
        if isinstance(self.range, Real):
            self.range.check(ctypes.c_float(number).value)
        return number

    def __str__(self) -> str:
        return str(self.range)


def _parameter(default: float, range: Integer | Real, meaning: str, off: float | None) -> Any:
    return field(default=default, metadata={"rule": Parameter(range, off, meaning)})


PROBABILITY = Real(0.0, 1.0, open_low=True)
PENALTY = Real(-2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; the defaults are the service's built-in ones."""

    temperature: float = _parameter(
        0.7, Real(0.0, 100.0), "0 always takes the likeliest token.", off=None
    )
    top_k: int = _parameter(
        40, Integer(0, (1 << 31) - 1), "Draw from the k likeliest tokens; 0 is off.", off=0
    )
    top_p: float = _parameter(
        0.9,
        PROBABILITY,
        "Draw from the likeliest tokens that together have this probability; 1 is off.",
        off=1,
    )
    min_p: float = _parameter(
        0.0,
        Real(0.0, 1.0, open_high=True),
        "Drop tokens less likely than this times the likeliest; 0 is off.",
        off=0,
    )
    typical_p: float = _parameter(1.0, PROBABILITY, "Locally typical sampling; 1 is off.", off=1)
    repeat_penalty: float = _parameter(
        1.0,
        Real(0.0, 100.0, open_low=True),
        "Above 1, make recent tokens less likely; 1 is off.",
        off=1,
    )
    repeat_last_n: int = _parameter(
        64,
        Integer(-1, 1 << 20),
        "How many tokens are recent for the three penalties; 0 is off, -1 the whole context.",
        off=0,
    )
    presence_penalty: float = _parameter(
        0.0, PENALTY, "Taken from the logit of every recent token; 0 is off.", off=0
    )
    frequency_penalty: float = _parameter(
        0.0,
        PENALTY,
        "Taken from the logit of a recent token once for each time it occurs; 0 is off.",
        off=0,
    )
    seed: int | None = None  # None: drawn at submission and reported at the end
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    # Count the prompt's tokens as recent, too. llama.cpp's programs do: their window is the last
    # tokens of prompt and completion together.
    penalize_prompt: bool = field(default=False, metadata={"rule": Boolean()})
    mirostat: int = _parameter(
        0,
        Integer(0, 2),
        "Hold the surprise of tokens near a target, by version 1 or 2; 0 is off.",
        off=0,
    )
    mirostat_tau: float = _parameter(
        5.0, Real(0.0, 100.0), "The target of mirostat, in bits a token.", off=None
    )
    mirostat_eta: float = _parameter(0.1, Real(0.0, 10.0), "How fast mirostat learns.", off=None)
    dry_multiplier: float = _parameter(
        0.0,
        Real(0.0, 100.0),
        "Taken from the logit of a token that would lengthen a repetition; 0 is off.",
        off=0,
    )
    dry_base: float = _parameter(
        1.75,
        Real(1.0, 100.0),
        "DRY takes this many times as much for each token more of the repetition.",
        off=None,
    )
    dry_allowed_length: int = _parameter(
        2,
        Integer(1, 1 << 20),
        "DRY lets repetitions that are shorter than this many tokens be.",
        off=None,
    )
    dry_penalty_last_n: int = _parameter(
        -1,
        Integer(-1, 1 << 20),
        "In how many tokens DRY looks for repetitions; 0 is off, -1 the whole context.",
        off=0,
    )
    xtc_probability: float = _parameter(
        0.0,
        Real(0.0, 1.0),
        "How often XTC drops all likely tokens but the least likely of them; 0 is off.",
        off=0,
    )
    xtc_threshold: float = _parameter(
        0.1, PROBABILITY, "To XTC a token is likely that has this probability.", off=None
    )
    top_n_sigma: float = _parameter(
        0.0,
        Real(0.0, 100.0),
        "Drop tokens whose logit is more standard deviations below the greatest; 0 is off.",
        off=0,
    )
    dynatemp_range: float = _parameter(
        0.0,
        Real(0.0, 100.0),
        "Let the temperature be so much lower or higher, where the model is sure or not; 0 is off.",
        off=0,
    )
    dynatemp_exponent: float = _parameter(
        1.0,
        Real(0.0, 100.0, open_low=True),
        "The power of the entropy that the dynamic temperature follows.",
        off=None,
    )
    # Text that no repetition of DRY reaches across; ("",) for none.
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    samplers: tuple[str, ...] = ()  # the order, of SAMPLERS; empty: theirs


PARAMETERS: Mapping[str, Parameter] = {
    entry.name: entry.metadata["rule"]
    for entry in dataclasses.fields(Sampling)
    if isinstance(entry.metadata.get("rule"), Parameter)
}
"""The numbers by name: the fields of Sampling that are numbers, but for the seed."""

SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""What may be put into an order, by llama.cpp's names and in its default order."""

LOGIT_BIAS = Real(-100.0, 100.0)
MAX_LOGIT_BIASES = 1024  # of one request

GREEDY = Sampling(
    temperature=0.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    typical_p=1.0,
    repeat_penalty=1.0,
    repeat_last_n=0,
    dry_penalty_last_n=0,
)
"""Always the likeliest token: no filter, no penalty."""
