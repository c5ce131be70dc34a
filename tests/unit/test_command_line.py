"""The command line of ``llamad``: flags over the file, exit codes."""

from pathlib import Path
from typing import Any

import pytest

from llamad import __main__, __version__, config, daemon, logs
from llamad.config import Config
from llamad.errors import ErrorKind, LlamadError


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what ``serve`` was called with, instead of a running service."""
    calls: dict[str, Any] = {}

    def serve(settings: Config, *, model_required: bool, read_again: object) -> None:
        calls.update(config=settings, model_required=model_required)

    monkeypatch.setattr(daemon, "serve", serve)
    monkeypatch.setattr(logs, "configure", lambda level: None)
    monkeypatch.setattr(config, "DEFAULT_PATH", Path("/nonexistent/llamad.toml"))
    return calls


def test_flags_go_over_the_file(served: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "llamad.toml"
    file.write_text('[model]\nthreads = 2\nkv_type = "q8_0"\n[queue]\ncapacity = 5\n')
    flags = ["--config", str(file), "--model", "/m.gguf", "--socket", "/s", "--threads", "3"]
    flags += ["--ctx-size", "512", "--memory-budget", "5000000"]
    assert __main__.main(["serve", *flags]) == 0
    settings = served["config"]
    assert (settings.model.path, settings.model.threads, settings.model.ctx_size) == (
        "/m.gguf",
        3,
        512,
    )
    assert (settings.model.kv_type, settings.model.memory_budget) == ("q8_0", 5_000_000)
    assert (settings.service.socket, settings.queue.capacity) == ("/s", 5)
    assert served["model_required"] is True


def test_without_flags_the_defaults_hold_and_no_model_is_required(served: dict[str, Any]) -> None:
    assert __main__.main(["serve", "--memory-budget", "auto"]) == 0
    assert served["config"] == Config()
    assert served["model_required"] is False


def test_a_check_reads_the_configuration_and_serves_nothing(
    served: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "llamad.toml"
    file.write_text("[limits]\nmax_prompt_bytes = 8\n")
    assert __main__.main(["serve", "--check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: the configuration is valid\n"
    file.write_text("[limits]\nmax_prompt_bytes = -8\n")
    assert __main__.main(["serve", "--check", "--config", str(file)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"llamad: {file}: limits.max_prompt_bytes = -8: ")
    assert served == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["serve", "--threads", "many"], "invalid int"),
        (["serve", "--kv-type", "f64"], "invalid choice"),
        (["serve", "--memory-budget", "much"], "'much' is no whole number"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--config", "/nonexistent/c.toml"], "/nonexistent/c.toml"),
        (["serve", "--threads", "1000"], "threads"),
        (["serve", "--ctx-size", "-1"], "ctx_size"),
    ],
)
def test_a_bad_setting_is_1_with_one_line(
    served: dict[str, Any],
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert __main__.main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("llamad: ")
    assert words in line


def test_an_error_is_one_line_whatever_it_quotes(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(settings: Config, *, model_required: bool, read_again: object) -> None:
        raise LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "tensor a\n\x1b[31m" + "é" * 10_000)

    monkeypatch.setattr(daemon, "serve", serve)
    assert __main__.main(["serve"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("llamad: tensor a\\n\\x1b[31méé")
    assert line.endswith("éé...\n")
    assert len(line) < 2 * __main__.MAX_MESSAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LlamadError(ErrorKind.CORRUPT, "MODEL_CORRUPT", "x.gguf: bad magic"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_how_serve_ends_is_the_exit_code(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def serve(settings: Config, *, model_required: bool, read_again: object) -> None:
        raise error

    monkeypatch.setattr(daemon, "serve", serve)
    assert __main__.main(["serve"]) == code


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        __main__.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"llamad {__version__}\n"


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in ("serve", *__main__.TOOLS))
