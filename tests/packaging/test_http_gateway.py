"""The files of the package llamad-http agree with the program: keys, flags, times, groups."""

import tomllib
from dataclasses import fields

from gateway.package_files import PACKAGING, flags_of, flags_on_page, unit, with_every_key
from llamad.config import Config as ServiceConfig
from llamad_gateway.config_file import parse
from llamad_http import __version__
from llamad_http.__main__ import parser
from llamad_http.authorization import READERS
from llamad_http.config import DEFAULT_PATH, Config
from project_files import ROOT


def test_the_default_file_shows_every_key_with_its_default() -> None:
    text = with_every_key("http.toml")
    assert parse(Config, text) == Config()
    shown = {(s, key) for s, table in tomllib.loads(text).items() for key in table}
    known = {(entry.metadata["section"], entry.name) for entry in fields(Config)}
    assert shown == known - {("aliases", "aliases")}
    assert str(DEFAULT_PATH) == "/etc/llamad/http.toml"


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


def test_every_connection_finds_a_descriptor() -> None:
    limit = int(unit("llamad-http.service")["LimitNOFILE"][0])
    assert limit > Config().max_connections + 64


def test_the_page_names_every_flag_and_command() -> None:
    page = (PACKAGING / "man" / "llamad-http.8").read_text(encoding="utf-8")
    assert flags_on_page(page) == flags_of(parser())
    for command in ("serve", "key add", "key list", "key rm"):
        assert f".It Cm {command}" in page


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == project
