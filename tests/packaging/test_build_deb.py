"""Who cannot build the packages is told why, and what to do, in one line. Builds no package."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from project_files import ROOT

USER, SUPERUSER = "1000", "0"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder of programs: of an amd64 Debian that has no package of the tools."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("bash", "dirname", "mkdir", "mktemp", "rm", "grep"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    program(folder, "dpkg", "echo amd64")
    program(folder, "dpkg-query", "exit 1")
    program(folder, "apt-get", "echo apt-get: no mirror >&2; exit 100")
    return folder


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def refusal(machine: Path, user_id: str, *arguments: str) -> str:
    """Return the one line that build-deb ends with."""
    program(machine, "id", f'[ "$1" = -u ] && echo {user_id} || echo somebody')
    output = machine.parent / "dist"
    arguments = (*arguments, str(output)) if arguments else ("amd64", str(output))
    done = subprocess.run(
        [str(ROOT / "packaging" / "build-deb"), *arguments],
        env={"PATH": str(machine), "TMPDIR": os.fspath(machine.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert not list(output.glob("*"))
    return done.stderr.splitlines()[-1]


def test_a_user_is_told_what_to_install(machine: Path) -> None:
    message = refusal(machine, USER)
    assert message.startswith("build-deb: missing Debian packages; run: sudo apt-get install")
    assert " build-essential debhelper dh-python " in message
    assert "lintian" not in message  # deb-check asks for it, a board need not have it


def test_root_is_told_what_apt_could_not_install(machine: Path) -> None:
    program(machine, "apt-get", '[ "$1" = update ]')
    message = refusal(machine, SUPERUSER)
    assert message.startswith("build-deb: apt-get could not install: build-essential")


def test_a_user_is_told_who_may_build_for_another_architecture(machine: Path) -> None:
    message = refusal(machine, USER, "arm64")
    assert "sudo make deb DEB_ARCH=arm64, or make deb on the arm64 machine itself" in message


def test_another_architecture_is_refused(machine: Path) -> None:
    assert "not for 'armhf'" in refusal(machine, SUPERUSER, "armhf")


def test_a_system_without_dpkg_is_told_which_one_has_it(machine: Path) -> None:
    (machine / "dpkg").unlink()
    assert "there is no dpkg: packages are built on Debian 12 or 13" in refusal(machine, USER)
