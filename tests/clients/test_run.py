"""llamactl run, names of the catalogue, and what becomes of a local file."""

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.http_server import HttpRequest, a_file, http_server, reply
from clients.running import RunningService, running_service
from llamactl.command_line import run as main
from tiny_gguf import TinySpec, write_tiny_model
from unit.schedule.fakes import saying


@pytest.fixture
def service() -> Iterator[RunningService]:
    before = signal.getsignal(signal.SIGTERM)
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf", TinySpec())


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a catalogue whose model `big` has the alias `demo`; its address leads nowhere."""
    path = tmp_path / "catalogue.toml"
    path.write_text(
        "[boards]\n[[models]]\nname = 'big'\naliases = ['demo']\ntitle = ''\n"
        "url = 'http://127.0.0.1:1/x.gguf'\nfile_bytes = 5\nsha256 = ''\nbytes_per_token = 1\n"
        "licence = 'MIT'\nconditions = ''\nmemory = '4 GB'\ncontext = 1\nnote = ''\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(path))
    return path


def llamactl(service: RunningService, *arguments: str) -> int:
    return main(["--socket", str(service.path), *arguments])


def run_model(service: RunningService, *arguments: str) -> int:
    """Run `llamactl run` with a prompt."""
    return llamactl(service, "run", "--no-stdin", *arguments, "q")


def test_a_file_is_added_loaded_and_asked(
    service: RunningService, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_model(service, str(model)) == 4  # the fake engine keeps its own model's name
    assert (service.service.models / "tiny.gguf").read_bytes() == model.read_bytes()
    notes = capsys.readouterr().err
    assert "tiny: added" in notes
    assert "tiny: loaded in" in notes


def test_the_loaded_model_is_neither_fetched_nor_loaded(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_model(service, "fake") == 0
    out = capsys.readouterr()
    assert (out.out, out.err) == ("An answer.\n", "")


def test_a_name_that_nobody_knows_is_refused(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_model(service, "nonsense") == 4
    assert "the catalogue has no model 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["hf.co/u/Tiny-GGUF", "hf.co/u/Tiny-GGUF:q4_0"])
def test_a_repository_is_fetched_once(
    service: RunningService,
    model: Path,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = json.dumps({"siblings": [{"rfilename": "Tiny-Q4_0.gguf"}]}).encode()
    content = a_file(model.read_bytes())

    def hub(request: HttpRequest) -> bytes:
        listing = request.path.startswith("/api/")
        answer = reply(200, files) if listing else content(request)
        return answer if isinstance(answer, bytes) else b"".join(answer)

    with http_server(hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url(""))
        assert llamactl(service, "pull", given) == 0
        asked = [request.path for request in server.requests]
        capsys.readouterr()
        run_model(service, given)
        assert [request.path for request in server.requests] == asked
    assert asked == ["/api/models/u/Tiny-GGUF", "/u/Tiny-GGUF/resolve/main/Tiny-Q4_0.gguf"]
    assert (service.service.models / "Tiny-Q4_0.gguf").exists()
    assert "Tiny-Q4_0: loaded in" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["use"], ["rm"]])
def test_a_name_of_the_catalogue_means_the_model_that_was_pulled(
    service: RunningService,
    model: Path,
    catalogue: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert llamactl(service, "pull", str(model), "--name", "big") == 0
    capsys.readouterr()
    assert llamactl(service, *command, "demo") == 0
    assert capsys.readouterr().out.startswith("big ")


def test_what_the_catalogue_recommends_goes_with_the_model(
    service: RunningService,
    model: Path,
    catalogue: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with http_server(a_file(model.read_bytes())) as server:
        text = catalogue.read_text().replace("http://127.0.0.1:1/x.gguf", server.url("/x.gguf"))
        catalogue.write_text(text + "sampling = { temperature = 0.6, top_k = 20 }\n")
        assert llamactl(service, "pull", "demo") == 0
    capsys.readouterr()
    assert llamactl(service, "show", "demo") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["temperature", "0.6", "the", "catalogue,", "at", "llamactl", "pull"] in rows
    assert ["top_k", "20", "the", "catalogue,", "at", "llamactl", "pull"] in rows
    assert ["top_p", "0.9", "built", "in"] in rows


def test_a_model_of_that_very_name_comes_before_the_catalogue(
    service: RunningService, model: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "big", "demo":
        assert llamactl(service, "pull", str(model), "--name", name) == 0
    capsys.readouterr()
    assert llamactl(service, "use", "demo") == 0
    assert capsys.readouterr().out.startswith("demo ")


# ---- a local file --------------------------------------------------------------------------------


def test_a_file_that_was_added_is_there_twice_and_move_deletes_it(
    service: RunningService, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert llamactl(service, "pull", str(model)) == 0
    assert f"{model} is on the disk twice now" in capsys.readouterr().err
    assert llamactl(service, "pull", "--move", str(model)) == 0
    assert f"{model}: deleted" in capsys.readouterr().err
    assert not model.exists()
    added = service.service.models / "tiny.gguf"
    assert hashlib.sha256(added.read_bytes()).hexdigest() == digest


def test_move_never_deletes_the_services_own_file(
    service: RunningService, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llamactl(service, "pull", str(model)) == 0
    own = service.service.models / "tiny.gguf"
    assert llamactl(service, "pull", "--move", str(own)) == 0
    assert own.exists()
    assert "is the service's own file" in capsys.readouterr().err


def test_move_keeps_a_file_that_was_refused(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"no model")
    assert llamactl(service, "pull", "--move", str(path)) != 0
    assert path.exists()


def test_move_is_for_files(service: RunningService, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        llamactl(service, "pull", "--move", "http://127.0.0.1:1/x.gguf")
    assert caught.value.code == 2
    assert "--move is for a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "use", "rm"])
@pytest.mark.parametrize("name", ["demo", "big"])
def test_a_model_of_the_catalogue_that_is_not_here_says_how_to_get_it(
    service: RunningService,
    catalogue: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
) -> None:
    assert llamactl(service, command, name) == 4
    hint = f'llamactl: {name}: is not here yet: "llamactl pull {name}" fetches it (5 B)\n'
    assert capsys.readouterr().err == hint


def test_half_a_repository_is_no_path(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("pull", "run"):
        assert llamactl(service, command, "hf.co/foo") == 4
        assert "hf.co/foo: names no repository; the forms are" in capsys.readouterr().err
    assert llamactl(service, "pull", "./missing") == 4
    assert "missing: No such file or directory" in capsys.readouterr().err


def test_a_file_that_is_served_from_elsewhere_is_told_apart_from_its_copy(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny_model(tmp_path / "fake.gguf", TinySpec())  # as the served one is called
    assert llamactl(service, "pull", str(path)) == 0
    note = "/models/fake.gguf goes on answering as fake: the service was started with it"
    assert note in capsys.readouterr().err
    assert llamactl(service, "models") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["NAME", "fake", "fake", "fake"]
    assert '"llamactl rm fake" deletes the one in the model directory' in out[-1]
