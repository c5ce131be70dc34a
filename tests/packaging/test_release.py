"""A release: its notes, and the workflow that makes it, whose YAML `make lint` judges."""

import re
import subprocess
from pathlib import Path

import pytest
from release_notes import NotReadyError, notes

from project_files import ROOT

WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text()
CHANGELOG = """\
# Changelog

## Unreleased

- Not yet.

## 1.2.0, 2026-12-24

- New.

## 1.1.0, 2026-12-01

- Old.
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which everything says that the version is 1.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "packaging/debian").mkdir(parents=True)
    (tmp_path / "packaging/debian/changelog").write_text("llamad (1.2.0) unstable; urgency=low\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def test_the_notes_are_the_section_of_the_version(tree: Path) -> None:
    assert notes(tree, "v1.2.0") == "- New.\n"


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (
            "pyproject.toml",
            '[project]\nversion = "1.3.0"\n',
            "version in pyproject.toml is 1.3.0",
        ),
        ("packaging/debian/changelog", "llamad (1.2.0-1) unstable\n", "not with 1.2.0"),
        ("CHANGELOG.md", "## Unreleased\n\n- New.\n", "no section '1.2.0, YYYY-MM-DD'"),
        ("CHANGELOG.md", "## 1.2.0\n\n- No date.\n", "no section '1.2.0, YYYY-MM-DD'"),
        ("CHANGELOG.md", "## 1.2.0, 2026-12-24\n", "says nothing of 1.2.0"),
    ],
)
def test_a_tree_that_is_no_release_is_told_why(
    tree: Path, file: str, text: str, reason: str
) -> None:
    (tree / file).write_text(text)
    with pytest.raises(NotReadyError, match=re.escape(reason)):
        notes(tree, "v1.2.0")


def test_the_workflow_calls_targets_and_scripts_that_exist() -> None:
    commands = "\n".join(
        line for line in WORKFLOW.splitlines() if not line.lstrip().startswith("#")
    )
    called = set(re.findall(r"(?<!git )\bmake ([a-z][a-z-]*)\b(?!\d)", commands))
    assert called == {"apt-repo", "release-notes", "site"}
    makefile = (ROOT / "Makefile").read_text()
    assert called <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for script in re.findall(r"(?:packaging|\.ci)/[\w-]+", commands):
        assert (ROOT / script).is_file(), script


def test_the_workflow_shows_the_signing_key_to_one_step_only() -> None:
    steps = re.split(r"^      - ", WORKFLOW, flags=re.MULTILINE)
    assert [step.splitlines()[0] for step in steps if "secrets." in step] == [
        "name: Make the signed apt repository of both architectures"
    ]


def test_a_repository_without_packages_is_refused(tmp_path: Path) -> None:
    command = [ROOT / "packaging/apt-repo", tmp_path, tmp_path / "repository"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"apt-repo: {tmp_path}: no packages there\n")
    (tmp_path / "llamactl_1_all.deb").touch()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "only packages for all architectures" in done.stderr
