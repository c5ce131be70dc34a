"""The commands and programs of the pages for people: those behind RUN are run as they stand.

One service with the demo model's catalogue serves all of them. What stays untested of README.md is
what installs packages (``make e2e`` does that) and what needs a terminal.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import PROGRAMS, running_service

from clients.http_server import a_file, http_server
from golden_files import DEMO_MODEL, needs_demo_model
from llamactl.command_line import parser
from project_files import ROOT

# Words behind "llamactl" where a command may begin; what is quoted may go on over lines.
CALL = r"""^(?:\$ |.*\| |[\w]+=\$\()?(?:sudo )?llamactl ((?:"[^"]*"|'[^']*'|[^"'\n)])+)"""
RUN = "<!-- a test runs this block -->"
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
TIMEOUT_SECONDS = 300.0  # for a machine that is busy; a block takes seconds


def blocks() -> list[tuple[str, str, str]]:
    """Return page, language and text of every block that is to be run, in their order."""
    return [
        (page, language, text)
        for page in PAGES
        for language, text in re.findall(
            RUN + r"\n```(\w+)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
        )
    ]


def catalogue_of(folder: Path, url: str) -> Path:
    """Write the catalogue with the demo model at ``url``."""
    text = (ROOT / "packaging" / "catalogue" / "catalogue.toml").read_text()
    [demo] = re.findall(r'url = "([^"]*SmolLM2-135M[^"]*)"', text)
    path = folder / "catalogue.toml"
    path.write_text(text.replace(demo, url))
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who uses the service; it has the demo model."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("models", "state"):
        (folder / name).mkdir(mode=0o700)
    configuration = (
        f'[model]\ndirectory = "{folder}/models"\n[service]\nstate_directory = "{folder}/state"\n'
    )
    with (
        http_server(a_file(DEMO_MODEL.read_bytes())) as server,
        running_service(folder, configuration) as address,
    ):
        variables = os.environ | {
            "LLAMAD_SOCKET": str(address),
            "LLAMAD_CATALOGUE": str(catalogue_of(folder, server.url("/demo.gguf"))),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }
        command = ["llamactl", "run", "demo", "Hello"]
        subprocess.run(
            command, env=variables, check=True, stdin=subprocess.DEVNULL, capture_output=True
        )
        yield variables


def run(language: str, text: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block in a folder that looks like a clone with its programs; return what it printed."""
    (folder / ".venv").symlink_to(PROGRAMS.parent)
    (folder / "models").symlink_to(DEMO_MODEL.parent)
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[language]
    result = subprocess.run(
        [*command, text],
        cwd=folder,
        env=environment | {"HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_pages_have_such_blocks() -> None:
    assert {page for page, _, _ in blocks()} >= {"README.md", "docs/programs.md"}
    assert sum((ROOT / page).read_text().count(RUN) for page in PAGES) == len(blocks())


def commands() -> list[tuple[str, str]]:
    """Return page and text of every call of llamactl in a block, run or not."""
    return [
        (page, call)
        for page in PAGES
        for text in re.findall(
            r"^ *```\w*\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
        )
        for call in re.findall(CALL, text.replace("\\\n", " "), re.MULTILINE)
    ]


@pytest.mark.parametrize(("page", "call"), commands())
def test_llamactl_knows_the_commands_and_flags_of_every_block(
    page: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(call, comments=True)
    ends = [i for i, word in enumerate(words) if re.match(r"[|<>&;]", word)]
    words = words[: ends[0]] if ends else words
    for word in words:
        if word.endswith(".json"):
            Path(word).write_text("[]")
    parser().parse_args(words)  # SystemExit where it does not


@needs_demo_model
@pytest.mark.parametrize(("page", "language", "text"), blocks())
def test_a_block_works_as_it_stands(
    page: str, language: str, text: str, environment: dict[str, str], tmp_path: Path
) -> None:
    assert run(language, text, tmp_path, environment).strip(), f"a block of {page} prints nothing"


@pytest.mark.parametrize(
    "text", [text for page, kind, text in blocks() if (page, kind) == ("README.md", "python")]
)
def test_the_program_of_the_readme_says_in_one_line_that_there_is_no_service(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | {"LLAMAD_SOCKET": "/nonexistent/llamad.sock"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no answer: llamad is not running: no socket /nonexistent/")
    assert done.stderr.count("\n") == 1


def test_a_traceback_names_an_error_as_a_program_imports_it() -> None:
    program = "import llamad_client; llamad_client.Client().version()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LLAMAD_SOCKET": "/nonexistent/llamad.sock"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.stderr.splitlines()[-1].startswith(
        "llamad_client.NotRunning: llamad is not running"
    )
    assert "During handling" not in done.stderr
