"""Which files belong to the project is known without git, and is what git says."""

import subprocess
from pathlib import Path

import pytest

from project_files import ROOT, is_ignored, project_files


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("build/x", True),
        ("native/build/native/src/a.o", True),
        ("build", False),  # a file of that name
        ("models/a.gguf", True),
        ("tests/models/a.gguf", False),
        ("daemon/llamad/_engine.abi3.so", True),
        ("daemon/llamad_tools/_engine.c", False),
        ("llamad.egg-info/PKG-INFO", True),
        ("tests/golden/passage.txt", False),
    ],
)
def test_a_path_is_ignored_as_gitignore_says(path: str, ignored: bool) -> None:
    assert is_ignored(path) is ignored


def test_files_are_those_of_the_tree_and_nothing_that_is_made() -> None:
    files = project_files()
    assert Path("tests/unit/test_project_files.py") in files
    assert Path("daemon/llamad/daemon.py") in files
    assert not [path for path in files if {".git", ".venv", "__pycache__"} & set(path.parts)]


def test_files_are_those_that_git_lists() -> None:
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed, so there is nothing to compare with")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git clone, so there is nothing to compare with")
    assert listed.returncode == 0, listed.stderr
    paths = {Path(name) for name in listed.stdout.split("\0") if name}
    assert set(project_files()) == {path for path in paths if (ROOT / path).is_file()}
