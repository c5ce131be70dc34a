"""What a request of a model gets where it does not say: who is heard first."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from llamad.config import Config, load_config
from llamad.errors import LlamadError
from llamad.rpc.from_proto import Rules, generation_request
from llamad.rpc.model_messages import rules_of
from llamad.sampling.parameters import PARAMETERS, Sampling
from llamad.service.settings import FILE_KEYS, Source, own_sampling, settings_of
from llamad_api.v1 import llamad_pb2 as pb

# A value of each parameter that is no other's default, by who says it.
VALUES: dict[Any, dict[str, Any]] = {
    "request": {"temperature": 0.125, "top_k": 3, "top_p": 0.125, "min_p": 0.125},
    Source.MODEL_SECTION: {"temperature": 0.25, "top_k": 4, "top_p": 0.25, "min_p": 0.25},
    Source.MODEL_FILE: {"temperature": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.5},
    Source.CONFIGURATION: {"temperature": 0.75, "top_k": 6, "top_p": 0.75, "min_p": 0.75},
}
NAMES = ("temperature", "top_k", "top_p", "min_p")
WHO = (Source.MODEL_SECTION, Source.MODEL_FILE, Source.CONFIGURATION)


def config(folder: Path, text: str) -> Config:
    path = folder / "llamad.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("speakers", [s for n in range(4) for s in itertools.combinations(WHO, n)])
@pytest.mark.parametrize("name", NAMES)
def test_the_first_who_says_something_is_heard(
    name: str, speakers: tuple[Source, ...], tmp_path: Path
) -> None:
    lines = []
    if Source.CONFIGURATION in speakers:
        lines += ["[sampling]", f"{name} = {VALUES[Source.CONFIGURATION][name]}"]
    if Source.MODEL_SECTION in speakers:
        lines += ['[models."m-0.5b"]', f"{name} = {VALUES[Source.MODEL_SECTION][name]}"]
    own = {name: VALUES[Source.MODEL_FILE][name]} if Source.MODEL_FILE in speakers else {}
    settings = settings_of(config(tmp_path, "\n".join(lines)), "m-0.5b", own)
    first = speakers[0] if speakers else Source.BUILT_IN
    expected = VALUES[first][name] if speakers else getattr(Sampling(), name)
    [setting] = [setting for setting in settings.settings if setting.name == name]
    assert (setting.value, setting.source) == (expected, first)
    rules = rules_of(Rules(), settings)
    asked = pb.Options(sampling=pb.Sampling(**{name: VALUES["request"][name]}))
    silent = generation_request(pb.GenerateRequest(prompt="p"), rules, "r")
    given = generation_request(pb.GenerateRequest(prompt="p", options=asked), rules, "r")
    assert getattr(silent.sampling, name) == expected
    assert getattr(given.sampling, name) == VALUES["request"][name]


def test_a_value_that_was_written_is_heard_though_it_is_the_default(tmp_path: Path) -> None:
    written = config(tmp_path, "[sampling]\ntemperature = 0.7\n")
    sources = {s.name: s.source for s in settings_of(written, "m", {}).settings}
    assert sources["temperature"] is Source.CONFIGURATION
    assert sources["top_k"] is Source.BUILT_IN


def test_another_models_section_says_nothing(tmp_path: Path) -> None:
    written = config(tmp_path, '[models.other]\nsystem = "s"\nthinking = "off"\n')
    settings = settings_of(written, "m", {})
    assert (settings.value("system"), settings.template_arguments) == ("", {})


def test_a_models_section_sets_chats(tmp_path: Path) -> None:
    text = '[models.m]\nsystem = "Be brief"\nthinking = "off"\nloop_guard = false\n'
    text += 'ctx_size = 64\ntemplate_arguments = { reasoning_effort = "low" }\n'
    settings = settings_of(config(tmp_path, text), "m", {})
    rules = rules_of(Rules(), settings)
    assert (rules.system, rules.loop_guard, settings.value("ctx_size")) == ("Be brief", False, 64)
    assert rules.template_arguments == {"reasoning_effort": "low", "enable_thinking": False}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("temperature = 101", 'temperature = 101 in [models."m"]: must be in [0, 100]'),
        ("thinking = true", 'must be "on" or "off" or "template"'),
        ("ctx_size = 1", '"auto" or 32..1048576'),
        ("system = 3", "must be a string"),
        ("nice = 1", "unknown key nice"),
        ("template_arguments = { messages = 1 }", "messages is set by the service"),
        ("template_arguments = { day = 2020-01-01 }", "day cannot be JSON"),
        ('thinking = "on"\ntemplate_arguments = { enable_thinking = true }', "give one"),
    ],
)
def test_a_wrong_section_is_refused_by_name(line: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LlamadError) as error:
        config(tmp_path, f"[models.m]\n{line}\n")
    assert says in error.value.message
    assert "llamad.toml" in error.value.message


def test_a_name_with_a_dot_that_lacks_its_quotes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LlamadError, match="a name with a dot stands in quotes"):
        config(tmp_path, "[models.qwen3-0.6b]\ntemperature = 1\n")


def test_a_file_says_how_it_is_sampled() -> None:
    metadata: dict[str, Any] = {
        "general.sampling.temp": 0.60000002384,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.949999988079,
        "general.sampling.min_p": 0,
        "general.sampling.penalty_repeat": 1.0499999523,
        "general.sampling.penalty_last_n": -1,
        "general.sampling.xtc_probability": 0.5,
        "general.sampling.xtc_threshold": 0.100000001490116,
        "general.sampling.mirostat": 2,
        "general.sampling.mirostat_tau": 4.0,
        "general.sampling.mirostat_eta": 0.200000002980232,
    }
    assert set(metadata) == set(FILE_KEYS.values())
    assert own_sampling("m", metadata) == {
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.0,
        "repeat_penalty": 1.05,
        "repeat_last_n": -1,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.1,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
    }


@pytest.mark.parametrize("value", [-1.0, float("nan"), "hot", True, [1], 1e30])
def test_what_a_file_may_not_say_is_left_out_and_told(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert own_sampling("m", {"general.sampling.temp": value}) == {}
    assert "general.sampling.temp" in caplog.text


def test_every_setting_is_json_and_every_parameter_is_there() -> None:
    settings = settings_of(Config(), "m", {})
    names = [setting.name for setting in settings.settings]
    assert json.dumps([setting.value for setting in settings.settings])
    assert set(PARAMETERS) < set(names)
    assert len(names) == len(set(names))
