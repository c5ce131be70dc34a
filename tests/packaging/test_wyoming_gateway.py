"""The files of the package llamad-wyoming agree with the program: keys, flags, times, groups."""

import tomllib
from dataclasses import fields

from gateway.package_files import PACKAGING, flags_of, flags_on_page, unit, with_every_key
from llamad.config import CLASSES as SERVICE_CLASSES
from llamad.config import Config as ServiceConfig
from llamad_gateway.config_file import parse
from llamad_wyoming import __version__
from llamad_wyoming.__main__ import parser
from llamad_wyoming.config import CLASSES, DEFAULT_PATH, Config
from llamad_wyoming.server import LAST_WORDS_SECONDS
from project_files import ROOT

SERVICE, SOCKET = "llamad-wyoming.service", "llamad-wyoming.socket"


def test_the_default_file_shows_every_key_with_its_default() -> None:
    text = with_every_key("wyoming.toml")
    assert parse(Config, text) == Config()
    shown = {(s, key) for s, table in tomllib.loads(text).items() for key in table}
    assert shown == {(entry.metadata["section"], entry.name) for entry in fields(Config)}
    assert str(DEFAULT_PATH) == "/etc/llamad/wyoming.toml"


def test_the_socket_is_the_default_address() -> None:
    assert unit(SOCKET)["ListenStream"] == list(Config().listen)


def test_it_may_talk_to_the_service() -> None:
    assert unit(SERVICE)["SupplementaryGroups"] == unit("llamad.service")["Group"]
    assert Config().socket == ServiceConfig().service.socket
    assert CLASSES == SERVICE_CLASSES


def test_it_is_in_the_sandbox_of_the_other_gateway() -> None:
    """All settings but who it is, what it runs and how much it may take."""
    own = {"After", "Description", "Documentation", "ExecStart", "MemoryMax", "Requires", "Sockets"}
    own |= {"LimitNOFILE", "SupplementaryGroups"}
    mine, other = unit(SERVICE), unit("llamad-http.service")
    assert {key: mine[key] for key in mine if key not in own} == {
        key: other[key] for key in other if key not in own
    }


def test_a_stop_waits_longer_than_answers_may_take() -> None:
    stop = int(unit(SERVICE)["TimeoutStopSec"][0])
    assert stop > 2 * Config().drain_seconds + LAST_WORDS_SECONDS


def test_the_page_names_every_flag_and_command() -> None:
    page = (PACKAGING / "man" / "llamad-wyoming.8").read_text(encoding="utf-8")
    assert flags_on_page(page) == flags_of(parser())
    assert ".It Cm serve" in page


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert __version__ == project
