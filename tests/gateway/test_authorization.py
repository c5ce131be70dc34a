"""API keys: who needs one, what a job of one is called, and what the program does about them."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.running import RunningService, environment, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from llamad_gateway.config_file import ConfigError, parse
from llamad_http.authorization import (
    Authorization,
    Caller,
    Keys,
    Origins,
    add_key,
    parse_keys,
    priority_of,
    remove_key,
)
from llamad_http.config import Config
from llamad_http.errors import HttpError
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def authorization(file: Path | None, *, beyond: bool = False, anybody: bool = False) -> Any:
    return Authorization(
        Keys(file), beyond_loopback=beyond, allow_unauthenticated=anybody, priority="normal"
    )


def test_a_key_is_known_by_its_secret_which_is_not_in_the_file(file: Path) -> None:
    kitchen = add_key(file, "kitchen", "interactive", False)
    boss = add_key(file, "boss", "batch", True)
    assert kitchen not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640
    known = authorization(file)
    bearer = {"authorization": f"Bearer {kitchen}"}
    assert known.caller(bearer) == Caller("kitchen", "interactive", False)
    assert known.caller({"authorization": f"bearer  {kitchen} "}).owner == "kitchen"
    assert known.caller({"x-api-key": boss}) == Caller("boss", "batch", True)
    remove_key(file, "kitchen")
    with pytest.raises(HttpError, match="not known"):
        known.caller(bearer)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer x"},
        {"authorization": "Basic eDp5"},
        {"x-api-key": "\udcff"},
    ],
)
def test_without_a_good_key_nobody_asks_once_there_is_one(
    file: Path, headers: dict[str, str]
) -> None:
    add_key(file, "a", "normal", False)
    with pytest.raises(HttpError) as caught:
        authorization(file).caller(headers)
    assert caught.value.status == 401


def test_who_needs_no_key(file: Path) -> None:
    nobody = Caller(None, "normal", False)
    assert authorization(file).caller({}) == nobody
    assert authorization(None).caller({}) == nobody
    assert authorization(file, beyond=True, anybody=True).caller({}) == nobody
    with pytest.raises(HttpError, match="no API key"):  # the last key was removed meanwhile
        authorization(file, beyond=True).caller({})


@pytest.mark.parametrize(
    "line", ["a", "a normal user 12 3", "a fast user " + "0" * 64 + " 1", "/ normal user 00 1"]
)
def test_a_file_with_a_wrong_line_lets_nobody_in(file: Path, line: str) -> None:
    file.write_text(f"# keys\n{line}\n")
    with pytest.raises(ValueError, match=":2: no key"):
        list(parse_keys(file.read_text(), "keys"))
    with pytest.raises(HttpError, match=":2: no key") as caught:
        authorization(file).caller({})
    assert caught.value.status == 503


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "ä", "a\n"])
def test_a_name_is_one_that_the_service_takes(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        add_key(file, name, "normal", False)
    with pytest.raises(ValueError, match="no key of this name"):
        remove_key(file, "nobody")


def test_a_class_is_at_most_the_key_s() -> None:
    caller = Caller("a", "normal", False)
    assert priority_of(caller, None) == "normal"
    assert priority_of(caller, "batch") == "batch"
    assert priority_of(caller, "interactive") == "normal"
    with pytest.raises(HttpError, match="Llamad-Priority"):
        priority_of(caller, "now")


def test_an_allowed_page_may_ask_and_a_configured_name_is_the_machine_s() -> None:
    origins = Origins(["Llama.Example"], ["https://chat.example/"])
    origins.check({"host": "llama.example:8080", "origin": "https://chat.example"})
    with pytest.raises(HttpError, match=r"server\.origins"):
        origins.check({"host": "llama.example", "origin": "https://other.example"})
    with pytest.raises(HttpError, match=r"server\.hosts"):
        origins.check({"host": "other.example"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nport = 1", r"server\.port: unknown key"),
        ("[nothing]", r"\[nothing\]: unknown"),
        ("listen = 1", r"\[listen\]: unknown"),
        ('[server]\nlisten = "x"', "must be a list"),
        ("[limits]\nmax_completions = 0", "must be 1 to 256, is 0"),
        ("[limits]\nmax_completions = true", "must be a whole number"),
        ("[limits]\nhead_seconds = nan", "must be 0.1 to 3600"),
        ('[service]\npriority = "now"', "must be one of"),
        ("[aliases]\nx = 1", r"aliases\.x: must be a string"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(Config, text)
    assert parse(Config, '[limits]\nhead_seconds = 2\n[aliases]\n"gpt-4o" = "m"') == Config(
        head_seconds=2.0, aliases={"gpt-4o": "m"}
    )


# ---- the program --------------------------------------------------------------------------------


def program(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    config = folder / "http.toml"
    config.write_text(f'[server]\nkeys = "{folder}/keys"\n')
    return subprocess.run(
        [sys.executable, "-m", "llamad_http", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def test_beyond_loopback_it_starts_only_with_a_key(tmp_path: Path) -> None:
    refused = program(tmp_path, "serve", "--listen", "0.0.0.0:0", "--socket", "/nowhere")
    assert refused.returncode == 2
    assert "llamad-http key add NAME" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_keys_are_added_listed_and_removed(tmp_path: Path) -> None:
    added = program(tmp_path, "key", "add", "kitchen", "--priority", "interactive")
    assert added.stdout.startswith("llk-")
    again = program(tmp_path, "key", "add", "kitchen")
    assert (again.returncode, again.stdout) == (5, "")
    assert "there is a key of this name" in again.stderr
    assert program(tmp_path, "key", "list").stdout.split()[:3] == ["kitchen", "interactive", "user"]
    assert program(tmp_path, "key", "rm", "kitchen").returncode == 0
    assert program(tmp_path, "key", "list").stdout == ""


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """Return a service over a fake engine, to which this process's user is an administrator."""
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def status_of(gateway: GatewayProcess, path: str, headers: dict[str, str], body: Any = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_job_of_a_key_belongs_to_its_name(service: RunningService, tmp_path: Path) -> None:
    with gateway_process(tmp_path, service.path) as gateway:
        assert status_of(gateway, "/v1/models", {}) == 200
        secret = add_key(tmp_path / "keys", "kitchen", "interactive", False)
        for path in "/v1/models", "/api/tags", "/metrics", "/props":
            assert status_of(gateway, path, {}) == 401
        assert status_of(gateway, "/health", {}) == 200
        headers = {"Authorization": f"Bearer {secret}", "Llamad-Priority": "batch"}
        assert status_of(gateway, "/v1/chat/completions", headers, HELLO) == 200
        assert status_of(gateway, "/v1/chat/completions", {}, HELLO) == 401
    (job,) = service.wait_until_idle()
    assert (job.owner, job.priority.name) == ("kitchen", "BATCH")


def test_a_service_that_comes_back_is_found(tmp_path: Path) -> None:
    socket = tmp_path / "llamad.sock"
    with gateway_process(tmp_path, socket) as gateway:
        assert status_of(gateway, "/v1/chat/completions", {}, HELLO) == 503
        assert status_of(gateway, "/health", {}) == 503
        with running_service() as running:
            socket.symlink_to(running.path)
            end = time.monotonic() + TIMEOUT_SECONDS
            while status_of(gateway, "/v1/models", {}) != 200:
                assert time.monotonic() < end
