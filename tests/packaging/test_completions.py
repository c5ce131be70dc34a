"""The shell completions are those of the parsers, and each shell takes its files."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clients.running import environment
from llamactl.command_line import parser as llamactl_parser
from llamad.__main__ import _parser as llamad_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "completions"
SHELLS = {
    "llamactl": "bash",
    "_llamactl": "zsh",
    "llamactl.fish": "fish",
    "llamad": "bash",
    "_llamad": "zsh",
    "llamad.fish": "fish",
}
PARSERS = {"llamactl": llamactl_parser(), "llamad": llamad_parser("")}


def _complete(*words: str) -> list[str]:
    """Return what bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source '{FOLDER}/{words[0]}'; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
        f" _{words[0]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_committed_files_are_what_the_parser_says() -> None:
    command = [sys.executable, str(ROOT / "packaging" / "completions.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", PARSERS)
def test_bash_offers_every_command_and_every_flag_of_it(program: str) -> None:
    subparsers = next(
        a for a in PARSERS[program]._actions if isinstance(a, argparse._SubParsersAction)
    )
    assert set(subparsers.choices) <= set(_complete(program, ""))
    for name, command in subparsers.choices.items():
        flags = {flag for action in command._actions for flag in action.option_strings}
        assert set(_complete(program, name, "-")) == flags, name


def test_bash_offers_the_choices_of_a_flag_and_sees_the_command_behind_global_flags() -> None:
    assert _complete("llamactl", "ask", "--priority", "b") == ["batch"]
    assert _complete("llamactl", "--socket", "jobs", "cancel", "--js") == ["--json"]
    assert _complete("llamactl", "sta") == ["status"]


def test_bash_offers_files_where_a_file_may_stand(tmp_path: Path) -> None:
    (tmp_path / "my model.gguf").touch()
    word = str(tmp_path / "my")
    assert " ".join(_complete("llamactl", "pull", word)) == f"{word} model.gguf"
    assert _complete("llamactl", "tokenize", word) == []
    assert " ".join(_complete("llamad", "bench", word)) == f"{word} model.gguf"
    assert " ".join(_complete("llamad", "serve", "--config", word)) == f"{word} model.gguf"
    assert _complete("llamad", "serve", word) == []
    assert _complete("llamad", "bench", "--kv-type", "q") == ["q4_0", "q8_0"]


@pytest.mark.parametrize("name", SHELLS)
def test_each_shell_takes_its_file(name: str) -> None:
    shell = SHELLS[name]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(FOLDER / name)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a llamactl that knows two models, and an evil one, be what the shells find."""
    mark = tmp_path / "mark"
    program = tmp_path / "bin" / "llamactl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"models) printf '%s\\n' NAME alpha beta '$(touch${{IFS}}{mark})' ;;\n"
        "jobs) printf '%s\\n' ID job-1 ;;\nesac\n"
    )
    program.chmod(0o755)
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text('[[models]]\nname = "gamma"\naliases = ["demo", "$(touch mark)"]\n')
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(catalogue))
    return mark


def test_bash_offers_the_names_of_models_jobs_and_the_catalogue(names: Path) -> None:
    assert _complete("llamactl", "use", "a") == ["alpha"]
    assert _complete("llamactl", "rm", "alpha", "b") == ["beta"]
    assert _complete("llamactl", "ask", "-m", "b") == ["beta"]
    assert _complete("llamactl", "cancel", "j") == ["job-1"]
    assert _complete("llamactl", "pull", "de") == ["demo"]
    assert _complete("llamactl", "run", "g") == ["gamma"]
    assert "alpha" not in _complete("llamactl", "use", "-")


def test_a_name_is_never_executed(names: Path) -> None:
    offered = _complete("llamactl", "run", "")
    assert {"alpha", "beta", "gamma"} <= set(offered)
    assert not any("touch" in word for word in offered)
    assert not names.exists()


def test_fish_offers_the_names_of_models(names: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = f"source {FOLDER}/llamactl.fish; complete -C 'llamactl use al'"
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["alpha"]
    assert not names.exists()
