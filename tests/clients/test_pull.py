"""llamactl pull against a service: what arrives there, what is printed, and the exit codes."""

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.http_server import HttpRequest, a_file, http_server, reply
from clients.running import RunningService, environment, llamactl_command, running_service
from llamactl.command_line import run as main
from llamad.door.caller import Credentials
from llamad.errors import ErrorKind, LlamadError
from tiny_gguf import TinySpec, write_tiny_model
from unit.schedule.fakes import TIMEOUT_SECONDS


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a model of 1.5 MB, most of it behind the last tensor."""
    path = write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", TinySpec())
    data = path.read_bytes()
    return data + random.Random(6).randbytes(1_500_000 - len(data))


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Llamactl:
    """Runs the program in this process, on one service's socket."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capture = capture

    def pull(self, *arguments: str) -> Outcome:
        """Run ``llamactl pull`` to its end."""
        code = main(["--socket", str(self._path), "pull", *arguments])
        captured = self._capture.readouterr()
        return Outcome(code, captured.out, captured.err)


@pytest.fixture
def llamactl(service: RunningService, capsys: pytest.CaptureFixture[str]) -> Iterator[Llamactl]:
    before = signal.getsignal(signal.SIGTERM)
    yield Llamactl(service.path, capsys)
    signal.signal(signal.SIGTERM, before)


def added_file(service: RunningService, name: str) -> bytes:
    return (service.service.models / f"{name}.gguf").read_bytes()


def wait_for_bytes(service: RunningService, name: str) -> None:
    """Wait until something of a file of the model directory is on the disk."""
    path = service.service.models / name
    end = time.monotonic() + TIMEOUT_SECONDS
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end
        service.do(lambda: None)  # its event loop goes on meanwhile


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- what arrives --------------------------------------------------------------------------------


def test_an_url_is_pulled_under_the_name_of_its_file(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url("/dir/My-Model.gguf?x=1"))
    assert added_file(service, "My-Model") == content
    assert (done.code, done.out) == (
        0,
        f'My-Model: added, 1.5 MB, sha256 {sha256(content)}\n"llamactl use My-Model" loads it\n',
    )
    assert len(server.requests) == 1


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_file_is_pulled(
    service: RunningService, llamactl: Llamactl, content: bytes, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "local.gguf"
    path.write_bytes(content)
    done = llamactl.pull(form.format(path), "--name", "other")
    assert (done.code, added_file(service, "other")) == (0, content)


def test_a_name_of_the_catalogue_is_pulled_and_its_conditions_are_told(
    service: RunningService,
    llamactl: Llamactl,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http_server(a_file(content)) as server:
        catalogue = tmp_path / "catalogue.toml"
        catalogue.write_text(
            f"""[boards]
            [[models]]
            name = "small-one"
            aliases = ["first"]
            title = "Small"
            url = "{server.url()}"
            file_bytes = {len(content)}
            sha256 = "{sha256(content)}"
            bytes_per_token = 1
            licence = "Own License"
            conditions = "not on Sundays"
            memory = "4 GB"
            context = 512
            note = "says little"
            """,
            encoding="utf-8",
        )
        monkeypatch.setenv("LLAMAD_CATALOGUE", str(catalogue))
        done = llamactl.pull("first")
    assert (done.code, added_file(service, "small-one")) == (0, content)
    told = ["llamactl: small-one: Own License: not on Sundays", "llamactl: small-one: says little"]
    assert done.err.splitlines()[:2] == told


def test_a_model_that_is_there_is_not_sent_again(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    with http_server(a_file(content)) as server:
        llamactl.pull(server.url())
        done = llamactl.pull(server.url(), "--sha256", sha256(content).upper())
    assert done.code == 0
    assert done.out.startswith("model: was there already, 1.5 MB")


def test_a_file_of_the_same_size_is_compared_before_it_is_called_the_same(
    service: RunningService, llamactl: Llamactl, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert llamactl.pull(str(path)).code == 0
    again = llamactl.pull(str(path))
    assert (again.code, again.out.startswith("model: was there already")) == (0, True)
    other = content[:-1] + b"?"
    path.write_bytes(other)
    assert llamactl.pull(str(path)).code == 4
    assert added_file(service, "model") == content
    replaced = llamactl.pull(str(path), "--replace")
    assert (replaced.code, replaced.out.startswith("model: added")) == (0, True)
    assert added_file(service, "model") == other


@pytest.mark.parametrize("longer", [False, True])
def test_another_model_of_that_name_is_replaced_when_that_is_wanted(
    service: RunningService, llamactl: Llamactl, content: bytes, longer: bool
) -> None:
    new = content + b"new" if longer else content[:-3] + b"new"
    with http_server(a_file(content)) as server:
        assert llamactl.pull(server.url()).code == 0
    with http_server(a_file(new)) as server:
        assert llamactl.pull(server.url()).code == 4
        assert added_file(service, "model") == content
        assert llamactl.pull(server.url(), "--replace").code == 0
    assert added_file(service, "model") == new


def test_a_transfer_goes_on_over_cuts(
    service: RunningService, llamactl: Llamactl, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamactl.download.LONGEST_WAIT_SECONDS", 0.0)
    with http_server(a_file(content, cuts=[600_000, 300_000])) as server:
        done = llamactl.pull(server.url())
    assert (done.code, added_file(service, "model")) == (0, content)
    assert done.err.count("trying again") == 2
    ranges = [request.headers.get("range") for request in server.requests]
    assert ranges == [None, "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_begins_again_where_it_has_to(
    service: RunningService,
    llamactl: Llamactl,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    ranges: bool,
) -> None:
    monkeypatch.setattr("llamactl.download.LONGEST_WAIT_SECONDS", 0.0)
    old = content[:-1] + b"?"
    rules = iter([a_file(old, cuts=[700_000], ranges=ranges)])
    later = a_file(content, tag='"v2"', ranges=ranges)
    with http_server(lambda request: next(rules, later)(request)) as server:
        done = llamactl.pull(server.url())
    assert (done.code, added_file(service, "model")) == (0, content)
    assert "the file changed; beginning again" in done.err


def test_a_run_goes_on_where_an_interrupted_one_stopped(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    released = threading.Event()

    def half(_: HttpRequest) -> Iterator[bytes]:
        answer = reply(200, content, 'ETag: "v1"')
        yield answer[:900_000]
        released.wait(TIMEOUT_SECONDS)

    rules: Any = iter([half])
    rule = a_file(content)
    with http_server(lambda request: next(rules, rule)(request)) as server:
        process = subprocess.Popen(
            llamactl_command("--socket", str(service.path), "--json", "pull", server.url()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "progress"
        wait_for_bytes(service, ".model.gguf.part")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
        released.set()
        assert process.returncode == 130
        assert "the same command goes on about there" in err
        assert list(service.service.models.glob("*.gguf")) == []
        assert llamactl.pull(server.url()).code == 0
    assert added_file(service, "model") == content
    start = server.requests[-1].headers["range"]
    assert 0 < int(start.removeprefix("bytes=").removesuffix("-")) <= 900_000


# ---- using it ------------------------------------------------------------------------------------


def test_the_first_model_is_loaded(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    service.do(lambda: service.service.state.no_model("no model"))
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url())
    assert service.service.memory.used == ["model"]
    assert done.out.splitlines()[1] == "model: loaded in 1.5 s, and at every start"


def test_the_first_model_is_not_loaded_when_that_is_not_wanted(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    service.do(lambda: service.service.state.no_model("no model"))
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url(), "--no-use")
    assert (done.code, service.service.memory.used) == (0, [])


def test_a_model_that_is_being_loaded_is_left_alone(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    service.do(lambda: service.service.state.loading("another"))
    with http_server(a_file(content)) as server:
        assert llamactl.pull(server.url()).code == 0
    assert service.service.memory.used == []


def test_a_model_that_cannot_be_loaded_was_added_nevertheless(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    service.do(lambda: service.service.state.no_model("no model"))
    service.service.memory.error = LlamadError(ErrorKind.EXHAUSTED, "NO_MEMORY", "too large")
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url())
    assert (done.code, done.err.splitlines()[-1]) == (4, "llamactl: too large")
    assert done.out.startswith("model: added")


# ---- output --------------------------------------------------------------------------------------


def test_a_log_gets_a_line_for_each_tenth(llamactl: Llamactl, content: bytes) -> None:
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url())
    lines = [line for line in done.err.splitlines() if " % of 1.5 MB" in line]
    assert 4 <= len(lines) <= 10
    assert lines[-1].startswith("100 % of 1.5 MB")


def test_json_is_one_object_a_line(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    service.do(lambda: service.service.state.no_model("no model"))
    with http_server(a_file(content)) as server:
        *progress, added, used = llamactl.pull(server.url(), "--json").lines()
    assert progress[-1] == {"type": "progress", "bytes": 1_500_000, "file_bytes": 1_500_000}
    assert added == {
        "type": "added",
        "name": "model",
        "path": str(service.service.models / "model.gguf"),
        "file_bytes": 1_500_000,
        "sha256": sha256(content),
        "unchanged": False,
    }
    assert used == {"type": "used", "name": "model", "load_seconds": 1.5}


def test_plain_http_without_a_sha256_is_remarked(llamactl: Llamactl, content: bytes) -> None:
    with http_server(a_file(content)) as server:
        assert "nothing proves" in llamactl.pull(server.url("/a.gguf")).err
        done = llamactl.pull(server.url("/b.gguf"), "--sha256", sha256(content))
    assert "nothing proves" not in done.err


# ---- refusals ------------------------------------------------------------------------------------


def test_without_a_service_nothing_is_asked_of_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    with http_server(a_file(content)) as server:
        assert Llamactl(tmp_path / "none.sock", capsys).pull(server.url()).code == 3
    assert server.requests == []


def test_who_may_not_add_models_is_told_before_the_download(
    capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    stranger = Credentials(uid=65534, gids=frozenset({65534}))
    with (
        running_service(credentials=lambda _: stranger) as running,
        http_server(a_file(content)) as server,
    ):
        done = Llamactl(running.path, capsys).pull(server.url(), "--json")
    assert done.code == 4
    assert json.loads(done.err.splitlines()[-1])["reason"] == "NOT_ADMIN"
    assert done.out == ""  # no progress


def test_another_sha256_is_refused_and_nothing_stays(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    with http_server(a_file(content)) as server:
        done = llamactl.pull(server.url(), "--sha256", "0" * 64)
    assert done.code == 5
    assert f"the sha256 is {sha256(content)}, must be {'0' * 64}" in done.err
    assert list(service.service.models.iterdir()) == []


def test_another_sha256_at_the_server_is_refused_before_the_download(
    llamactl: Llamactl, content: bytes
) -> None:
    linked = f'X-Linked-Etag: "{sha256(content)}"'
    with http_server(a_file(content, headers=(linked,))) as server:
        done = llamactl.pull(server.url(), "--sha256", "0" * 64)
    assert (done.code, done.out) == (4, "")
    assert "the server has a file of sha256" in done.err


def test_the_sha256_of_the_server_is_checked(
    service: RunningService, llamactl: Llamactl, content: bytes
) -> None:
    with http_server(a_file(content, headers=(f'X-Linked-Etag: "{"1" * 64}"',))) as server:
        done = llamactl.pull(server.url())
    assert (done.code, list(service.service.models.iterdir())) == (5, [])


@pytest.mark.parametrize(
    ("head", "shown"), [(b"<html>", "'<htm'"), (b"\x1f\x8b\x08\x00", r"'\x1f\x8b\x08\x00'")]
)
def test_what_is_no_model_is_refused_at_its_first_bytes(
    llamactl: Llamactl, head: bytes, shown: str
) -> None:
    with http_server(lambda _: reply(200, head + bytes(5_000_000))) as server:
        done = llamactl.pull(server.url())
    assert done.code == 5
    assert f"begins with {shown} and not with 'GGUF': it is no model" in done.err


def test_a_failed_download_exits_with_5_and_json_says_why(llamactl: Llamactl) -> None:
    with http_server(lambda _: reply(404)) as server:
        done = llamactl.pull(server.url(), "--json")
    assert (done.code, done.out) == (5, "")
    assert json.loads(done.err.splitlines()[-1])["reason"] == "DOWNLOAD_FAILED"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-model"], 4, "the catalogue has no model 'no-such-model'"),
        (["/no/such/file.gguf"], 4, "/no/such/file.gguf: No such file or directory"),
        (["ftp://h/m.gguf"], 4, "is no http:// or https:// URL"),
        (["file://elsewhere/m"], 4, "a file of this machine is file:///PATH"),
        (["https:///m.gguf"], 4, "is no http:// or https:// URL"),
        (["/proc/self/status"], 4, "status: the file is empty"),
    ],
)
def test_a_source_that_is_none_is_refused(
    llamactl: Llamactl, arguments: list[str], code: int, words: str
) -> None:
    done = llamactl.pull(*arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.gguf", "--sha256", "12"], "a sha256 has 64 hexadecimal digits"),
        (["x.gguf", "--max-bytes", "0"], "--max-bytes 0: must be at least 1"),
        (["x.gguf", "--max-bytes", "many"], "invalid int value: 'many'"),
        (["https://example.org/"], "give --name"),
    ],
)
def test_wrong_usage_exits_with_2(
    llamactl: Llamactl, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        llamactl.pull(*arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_file_above_the_own_limit_is_refused(
    llamactl: Llamactl, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with http_server(a_file(content)) as server:
        for source in (server.url(), str(path)):
            done = llamactl.pull(source, "--max-bytes", "1000")
            assert done.code == 4
            assert "has 1500000 bytes, allowed are 1000" in done.err
