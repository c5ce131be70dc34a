"""The configuration: the default file and the schema say the same; every wrong value is refused."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llamad.config import SECTIONS, Config, Mode, NumberOrAuto, Text, load_config, rules
from llamad.errors import ErrorKind, LlamadError

DEFAULT_FILE = Path(__file__).parents[2] / "packaging" / "etc" / "llamad.toml"
KEYS = [(section, key) for section in SECTIONS for key in rules(section)]


def _uncommented() -> str:
    return re.sub(r"^#(\w+ = )", r"\1", DEFAULT_FILE.read_text(), flags=re.MULTILINE)


def _comments() -> dict[tuple[str, str], str]:
    """Return the comment in front of every key of the default file, on one line."""
    comments: dict[tuple[str, str], str] = {}
    section, block = "", ""
    for line in DEFAULT_FILE.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section, block = header[1], ""
        elif key := re.match(r"#(\w+) = ", line):
            comments[section, key[1]] = block
        else:
            block = f"{block} {line[1:].strip()}" if line.startswith("#") else ""
    return comments


def _write(folder: Path, text: str) -> Path:
    path = folder / "llamad.toml"
    path.write_text(text)
    return path


def _refusal(path: Path | None, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(LlamadError) as error:
        load_config(path, overrides)
    assert (error.value.kind, error.value.reason) == (ErrorKind.INVALID, "INVALID_CONFIG")
    assert "\n" not in error.value.message
    return error.value.message


@pytest.mark.parametrize("key", ["service.socket", "model.path", "model.directory"])
def test_a_path_that_a_shell_should_have_expanded_is_refused(key: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    file = _write(tmp_path, f'[{section}]\n{name} = "~/there"\n')
    assert f"{key} = '~/there': ~ is not expanded" in _refusal(file)
    assert "~ is not expanded" in _refusal(None, {key: "~user/there"})


def test_the_default_file_changes_nothing() -> None:
    assert load_config(DEFAULT_FILE) == Config() == load_config(None)


def test_the_default_file_shows_every_key_with_its_default(tmp_path: Path) -> None:
    text = _uncommented()
    shown = tomllib.loads(text)
    assert {s: list(keys) for s, keys in shown.items()} == {s: list(rules(s)) for s in SECTIONS}
    assert load_config(_write(tmp_path, text)) == Config()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_the_default_file_says_what_each_key_allows(section: str, key: str) -> None:
    comment, rule = _comments()[section, key], rules(section)[key]
    assert len(comment) > 20
    if not isinstance(rule, Text):
        assert comment.endswith(f" {rule}")


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_default_is_allowed_by_its_own_rule(section: str, key: str) -> None:
    default = getattr(getattr(Config(), section), key)
    assert rules(section)[key].check(default) == default


@pytest.mark.parametrize(("section", "key"), KEYS)
@pytest.mark.parametrize("value", [[], {}, float("nan"), 1 << 70, -(1 << 70), "\0"])
def test_every_key_refuses_nonsense_and_names_itself(section: str, key: str, value: Any) -> None:
    message = _refusal(None, {f"{section}.{key}": value})
    assert message.startswith("command line: ")
    assert f"{section}.{key}" in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[model]\nthreads = 65", "0..64"),
        ("[model]\nthreads = -1", "0..64"),
        ("[model]\nthreads = true", "whole number"),
        ("[model]\nthreads = 2.0", "whole number"),
        ("[model]\nctx_size = 31", '"auto" or 32..1048576'),
        ("[model]\nctx_size = 0", '"auto" or 32..1048576'),
        ('[model]\nkv_type = "q4_1"', '"f16" or "q8_0" or "q4_0"'),
        ('[model]\nmemory_budget = "2G"', '"auto" or 1048576..'),
        ("[model]\nlock = 1", "true or false"),
        ("[model]\nbatch = 2", "at least model.n_sequences"),
        ("[sampling]\ntop_p = 0.0", "(0, 1]"),
        ("[sampling]\nmin_p = 1.0", "[0, 1)"),
        ("[sampling]\ntemperature = inf", "[0, 100]"),
        ("[sampling]\nrepeat_last_n = -2", "-1..1048576"),
        ('[sampling]\ntop_p = "high"', "number in (0, 1]"),
        ("[service]\nsocket_mode = 0o1777", "0o600..0o777"),
        ('[service]\nsocket = ""', "must not be empty"),
        (f'[service]\nsocket = "/{"s" * 107}"', "at most 107 bytes"),
        ("[metrics]\nperiod_seconds = 0", "[1, 3600]"),
        ('[log]\nlevel = "loud"', '"debug" or "info"'),
        ("[model]\nthread = 4", "unknown key model.thread; [model] has path, directory, threads"),
        ("[queue]\nageing_seconds = 0", "[1, 86400]"),
        ('[queue]\nmost_urgent = "urgent"', '"interactive" or "normal" or "batch"'),
        (
            "[owners.anna]\njob = 3",
            'unknown key job in [owners."anna"]; there are jobs, most_urgent',
        ),
        ("[owners.anna]\njobs = -1", "0..10000"),
        ("[owners.anna]\nmost_urgent = 1", '"interactive" or "normal" or "batch"'),
        ("[owners]\nanna = 3", 'owners.anna must be a section, [owners."anna"]'),
        ("owners = 3", "unknown section [owners]"),
        ("[modell]\nthreads = 4", "unknown section [modell]; there are service, model"),
        ("threads = 4", "unknown section [threads]"),
        ("model = 4", "model must be a section"),
        ("[model", "Expected"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_what_is_allowed(
    tmp_path: Path, line: str, says: str
) -> None:
    path = _write(tmp_path, line)
    message = _refusal(path)
    assert says in message
    if "n_sequences" not in says:
        assert message.startswith(str(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in _refusal(tmp_path / "none.toml")
    assert "directory" in _refusal(tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert str(path) in _refusal(path)


def test_values_are_read_in_their_types(tmp_path: Path) -> None:
    config = load_config(
        _write(
            tmp_path,
            "[model]\nmemory_budget = 2000000000\n[sampling]\ntemperature = 1\n"
            "[service]\nsocket_mode = 0o600\n[queue]\ncapacity = 3\n",
        )
    )
    assert config.model.memory_budget == 2_000_000_000
    assert isinstance(config.sampling.temperature, float)
    assert config.service.socket_mode == 0o600
    assert config.queue.capacity == 3


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "[model]\nthreads = 2\nctx_size = 512\nmemory_budget = 5000000\n")
    config = load_config(path, {"model.threads": 3, "model.memory_budget": "auto"})
    assert (config.model.threads, config.model.ctx_size) == (3, 512)
    assert config.model.memory_budget is None


def test_a_flag_for_an_unknown_key_is_refused() -> None:
    assert "model.speed" in _refusal(None, {"model.speed": 1})
    assert "unknown section [speed]" in _refusal(None, {"speed": 1})


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.threads = 4  # type: ignore[misc]


def test_rules_say_their_range_as_people_write_it() -> None:
    assert str(Mode(0o600, 0o777)) == "0o600..0o777"
    assert str(NumberOrAuto(1, 9)) == '"auto" or 1..9'
