"""The files of the package llamad-http agree with the program: keys, flags, times, groups."""

import argparse
import re
import tomllib
from dataclasses import fields
from pathlib import Path

from llamad.config import Config as ServiceConfig
from llamad_gateway.config_file import parse
from llamad_http import __version__
from llamad_http.__main__ import parser
from llamad_http.authorization import READERS
from llamad_http.config import DEFAULT_PATH, Config

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
DEFAULT_FILE = PACKAGING / "etc" / "http.toml"


def default_file_with_every_key() -> str:
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    return re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)


def unit(name: str) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in (PACKAGING / "systemd" / name).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            settings.setdefault(match[1], []).append(match[2])
    return settings


def test_the_default_file_shows_every_key_with_its_default() -> None:
    text = default_file_with_every_key()
    assert parse(Config, text) == Config()
    shown = {(s, key) for s, table in tomllib.loads(text).items() for key in table}
    known = {(entry.metadata["section"], entry.name) for entry in fields(Config)}
    assert shown == known - {("aliases", "aliases")}
    assert str(DEFAULT_PATH) == f"/etc/llamad/{DEFAULT_FILE.name}"


def test_the_sockets_are_the_default_addresses() -> None:
    sockets = ("llamad-http.socket", "llamad-http-ollama.socket")
    listen = [unit(name)["ListenStream"] for name in sockets]
    assert [*listen[0], *listen[1]] == list(Config().listen)
    assert unit("llamad-http.service")["Sockets"] == [" ".join(sockets)]


def test_the_gateway_may_talk_to_the_service_and_read_its_keys() -> None:
    groups = unit("llamad-http.service")["SupplementaryGroups"][0].split()
    users = (PACKAGING / "debian" / "llamad.sysusers").read_text().split()
    assert set(groups) <= set(users)
    assert groups == [unit("llamad.service")["Group"][0], READERS]
    assert ServiceConfig().service.gateway_group == READERS
    assert Config().socket == ServiceConfig().service.socket


def test_a_stop_waits_longer_than_answers_may_take() -> None:
    assert int(unit("llamad-http.service")["TimeoutStopSec"][0]) > 2 * Config().drain_seconds


def test_the_page_names_every_flag_and_command() -> None:
    page = (PACKAGING / "man" / "llamad-http.8").read_text(encoding="utf-8")
    found = re.findall(r"\bFl (Fl )?([\w-]+)", page)
    named = {("--" if double else "-") + word for double, word in found if word != "Fl"}
    top = parser()
    flags = flags_of(top)
    assert named == flags
    for command in ("serve", "key add", "key list", "key rm"):
        assert f".It Cm {command}" in page


def flags_of(top: argparse.ArgumentParser) -> set[str]:
    flags: set[str] = set()
    for action in top._actions:
        flags.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            flags.update(*(flags_of(command) for command in action.choices.values()))
    return flags


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == project
