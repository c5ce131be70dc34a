"""The table of sampling parameters against everything that repeats it: the engine's struct and
ranges, generation.proto, the man pages, the default file, the flags and options of the clients."""

import argparse
import dataclasses
import math
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from llamad._engine import ffi

from llamactl.sampling import add_flags
from llamad.engine.bindings import EngineError, Sampler
from llamad.errors import LlamadError
from llamad.ranges import Integer, Real
from llamad.rpc import from_proto
from llamad.sampling.parameters import GREEDY, PARAMETERS, Sampling
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client.request import Options

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Sampling()
INT32_MAX = (1 << 31) - 1


def ends(limits: Integer | Real) -> tuple[list[float], list[float]]:
    """Return float32 values at the ends of the range that are in it, and ones that are not."""
    if isinstance(limits, Integer):
        outside = [limits.low - 1, *([limits.high + 1] if limits.high < INT32_MAX else [])]
        return [limits.low, limits.high], list(outside)
    low, high = (limits.low, limits.open_low, -1), (limits.high, limits.open_high, +1)
    good = [beyond(end, -out) if is_open else end for end, is_open, out in (low, high)]
    bad = [end if is_open else beyond(end, out) for end, is_open, out in (low, high)]
    return good, [*bad, math.nan, math.inf, -math.inf]


def beyond(value: float, direction: int) -> float:
    """Return a float32 near the value, on one side of it."""
    return float(ffi.cast("float", value + direction * max(abs(value), 1e-3) * 1e-6))


ENDS = [
    (name, value, good)
    for name, parameter in PARAMETERS.items()
    for good, values in zip((True, False), ends(parameter.range), strict=True)
    for value in values
]


@pytest.mark.parametrize(("name", "value", "good"), ENDS)
def test_table_engine_and_requests_have_the_same_ranges(
    name: str, value: float, good: bool
) -> None:
    changed: dict[str, Any] = {name: value}
    options = pb.Options(sampling=pb.Sampling(**changed))
    message = pb.GenerateRequest(prompt="p", options=options)
    sampling = dataclasses.replace(DEFAULTS, **changed)
    if good:
        assert PARAMETERS[name].check(value) == value
        from_proto.generation_request(message, from_proto.Rules(), "r")
        Sampler(sampling, vocab_size=8, n_ctx=8, seed=1).close()
        return
    with pytest.raises(ValueError, match=re.escape(str(PARAMETERS[name]))):
        PARAMETERS[name].check(value)
    with pytest.raises(LlamadError, match=f"^{name}: "):
        from_proto.generation_request(message, from_proto.Rules(), "r")
    with pytest.raises(EngineError, match=f"^{name} is "):
        Sampler(sampling, vocab_size=8, n_ctx=8, seed=1)


@pytest.mark.parametrize(("name", "value"), [("min_p", 1 - 1e-9), ("top_p", 1e-60)])
def test_a_number_that_the_engine_would_round_out_of_its_range_is_refused(
    name: str, value: float
) -> None:
    with pytest.raises(ValueError, match="must be in"):
        PARAMETERS[name].check(value)


def test_the_struct_of_the_engine_has_the_parameters_and_the_seed() -> None:
    fields = {name: field.type.cname for name, field in ffi.typeof("lld_sampling").fields}
    assert fields == {**{name: c_type(name) for name in PARAMETERS}, "seed": "uint64_t"}


def c_type(name: str) -> str:
    return "int32_t" if isinstance(PARAMETERS[name].range, Integer) else "float"


def test_the_comments_of_the_sampling_header_have_the_ranges() -> None:
    header = (ROOT / "native/include/llamad_sampling.h").read_text(encoding="utf-8")
    for name, parameter in PARAMETERS.items():
        comment = re.search(rf"\b{name};\s*/\*(.*?)\*/", header)
        assert comment, name
        if isinstance(parameter.range, Real):
            assert str(parameter) in comment[1]
        if parameter.off is not None:
            assert f"{parameter.off:g} = off" in comment[1]


def test_the_comments_of_the_proto_are_the_table() -> None:
    text = (ROOT / "protos/llamad_api/v1/generation.proto").read_text(encoding="utf-8")
    message = text.split("message Sampling {\n")[1].split("\n}")[0]
    described = {
        name: (kind, re.sub(r"\s*// ", " ", comment).strip())
        for comment, kind, name in re.findall(
            r"((?:  // .*\n)+)  optional (\w+) (\w+) = \d+;", message
        )
    }
    described.pop("penalize_prompt")  # a boolean
    assert described == {
        name: (
            c_type(name).removesuffix("_t"),
            f"{parameter.meaning} {parameter}, default {getattr(DEFAULTS, name):g}.",
        )
        for name, parameter in PARAMETERS.items()
    }
    assert [field.name for field in pb.Sampling.DESCRIPTOR.fields] == [
        field.name for field in dataclasses.fields(Sampling)
    ]


def test_the_flags_of_llamactl_are_the_table() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = {action.dest: action for action in parser._actions}
    for name, parameter in PARAMETERS.items():
        assert flags[name].option_strings == [f"--{name.replace('_', '-')}"]
        assert flags[name].type is type(getattr(DEFAULTS, name))
        assert flags[name].help == parameter.meaning.removesuffix(".")


@pytest.mark.parametrize("page", ["llamactl.1", "llamad.toml.5"])
def test_the_man_pages_have_the_meanings(page: str) -> None:
    lines = (ROOT / "packaging/man" / page).read_text(encoding="utf-8").replace("\n", " ")
    for name, parameter in PARAMETERS.items():
        assert parameter.meaning in lines, name


def test_the_default_file_has_the_meanings() -> None:
    text = (ROOT / "packaging/etc/llamad.toml").read_text(encoding="utf-8")
    joined = text.replace("\n# ", " ")
    for name, parameter in PARAMETERS.items():
        default = getattr(DEFAULTS, name)
        assert f"{parameter.meaning} {parameter}\n#{name} = {default}\n" in joined


def test_the_options_of_the_client_are_the_table() -> None:
    options = get_type_hints(Options)
    for field in dataclasses.fields(Sampling):
        assert field.name in options
    for name in PARAMETERS:
        assert options[name] is type(getattr(DEFAULTS, name))


def test_greedy_has_everything_off() -> None:
    assert GREEDY.temperature == 0
    for name, parameter in PARAMETERS.items():
        if parameter.off is not None:
            assert getattr(GREEDY, name) == parameter.off
            assert f"{parameter.off:g} is off" in parameter.meaning
