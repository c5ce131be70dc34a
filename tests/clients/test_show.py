"""llamactl show: a model by its name, with the settings and who said so."""

import json
import signal
from collections.abc import Iterator

import pytest

from clients.running import RunningService, running_service
from llamactl.command_line import run as main
from llamad.config import Config, SamplingConfig
from tiny_gguf import TinySpec, write_tiny_model

CONFIG = Config(
    sampling=SamplingConfig(temperature=0.3),
    models={"tiny": {"system": "Be\x1b[2Jbrief"}},
    written=frozenset({"sampling.temperature"}),
)


@pytest.fixture
def service() -> Iterator[RunningService]:
    before = signal.getsignal(signal.SIGTERM)
    with running_service(config=CONFIG) as running:
        write_tiny_model(running.service.models / "tiny.gguf", TinySpec())
        yield running
    signal.signal(signal.SIGTERM, before)


def show(service: RunningService, *arguments: str) -> int:
    return main(["--socket", str(service.path), "show", *arguments])


def test_a_model_is_shown_with_the_source_of_each_setting(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(service, "tiny") == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["name:", "tiny"] in rows
    assert ["architecture:", "llama"] in rows
    assert ["loaded:", "no"] in rows
    assert ["temperature", "0.3", "llamad.toml"] in rows
    assert ["top_k", "40", "built", "in"] in rows
    assert "[models.NAME] of llamad.toml" in out
    assert "\x1b" not in out


def test_metadata_and_template_are_shown_on_request(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(service, "--metadata", "tiny") == 0
    assert 'general.architecture = "llama"' in capsys.readouterr().out
    assert show(service, "--json", "tiny") == 0
    model = json.loads(capsys.readouterr().out)
    assert show(service, "--template", "tiny") == 0
    assert capsys.readouterr().out == model["chat_template"] + "\n"


def test_a_model_that_is_not_there_is_refused(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(service, "nonsense") == 4
    assert "nonsense" in capsys.readouterr().err
