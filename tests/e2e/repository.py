"""The apt repository of ``packaging/apt-repo``, over HTTP on a machine's loopback.

Owns publishing packages there, newer copies of them too, and repositories that apt must refuse. The
web server is a program of this computer in the machine's network: nothing is there before apt
installed it.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.machine import Machine, Result
from e2e.service import apt_command

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "apt-repo"
PORT = 8001
SOURCES = "etc/apt/sources.list.d/llamad.sources"
LISTS = "dists/stable/main"
SIGNATURES = ("InRelease", "Release.gpg")
REFUSED = 100  # apt's exit code for every failure
NOT_SIGNED = "is not signed|invalid signature|signature verification"
OTHER_BYTES = "Hash Sum mismatch|File has unexpected size"


class Repository:
    """A folder that a web server shows to the machine, with one good repository in it."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Take a machine that runs, and the folder of the web server."""
        self._machine = machine
        self._folder = folder

    def publish(self, debs: list[Path]) -> None:
        """Put the packages in the place of those that were there; twice gives the same bytes."""
        with tempfile.TemporaryDirectory() as folder:
            for deb in debs:
                shutil.copy(deb, folder)
            _make(Path(folder), self._folder / "again", {"APT_URL": _url("good")})
            _make(Path(folder), self._folder / "good", {"APT_URL": _url("good")})
        differing = _differing(self._folder / "again", self._folder / "good")
        assert differing <= {f"dists/stable/{name}" for name in SIGNATURES}, differing
        shutil.rmtree(self._folder / "again")

    def add(self) -> None:
        """Tell the machine's apt of it, as an administrator does, and read its lists."""
        self._use("good")
        read = self._update()
        assert read.returncode == 0, read

    def check_refusals(self) -> None:
        """Apt takes nothing that the key did not sign, says why, and installs nothing."""
        for name, spoil in SPOILED.items():
            shutil.copytree(self._folder / "good", self._folder / name)
            spoil(self._folder / name)
            self._use(name)
            if name != "package":
                self._expect(self._update(), OTHER_BYTES if name == "list" else NOT_SIGNED)
                continue
            assert self._update().returncode == 0  # its lists are as they were signed
            install = apt_command("install", "llamad", "llamactl")
            self._expect(self._machine.run(*install, check=False), OTHER_BYTES)
        assert self._machine.run("dpkg", "--status", "llamad", check=False).returncode == 1

    def upgrade_command(self) -> tuple[str, ...]:
        """Read the lists again; return the command that then upgrades what is installed."""
        read = self._update()
        assert read.returncode == 0, read
        return apt_command("upgrade")

    def remove(self) -> None:
        """Let the machine's apt forget it, with the packages that it keeps."""
        (self._machine.root / SOURCES).unlink()
        self._machine.run("apt-get", "clean")

    def _use(self, name: str) -> None:
        text = (self._folder / "good" / "llamad.sources").read_text()
        (self._machine.root / SOURCES).write_text(text.replace(_url("good"), _url(name)))

    def _update(self) -> Result:
        """Read the lists of this repository alone: from here the machine reaches no other."""
        only = (f"Dir::Etc::sourcelist=/{SOURCES}", "Dir::Etc::sourceparts=-")
        options = (*only, "APT::Get::List-Cleanup=0", "Acquire::Retries=0")
        flags = (word for option in options for word in ("-o", option))
        return self._machine.run("apt-get", "update", *flags, check=False)

    def _expect(self, result: Result, pattern: str) -> None:
        assert result.returncode == REFUSED, result
        said = re.search(f"^[EW]: .*({pattern})", result.stdout, re.MULTILINE)
        assert said is not None, result.stdout


@contextmanager
def served_repository(machine: Machine) -> Iterator[Repository]:
    """Serve a repository, empty as yet, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = machine.start_beside(
            *(sys.executable, "-m", "http.server", str(PORT), "--bind=127.0.0.1"),
            *("--directory", folder),
        )
        try:
            yield Repository(machine, Path(folder))
        finally:
            server.terminate()
            server.wait()


def newer_packages(debs: list[Path], version: str, folder: Path) -> list[Path]:
    """Write the packages again as ``version+e2e``, which they ask for of one another too."""
    return [_with_version(deb, version, f"{version}+e2e", folder) for deb in debs]


def _with_version(deb: Path, old: str, new: str, folder: Path) -> Path:
    tree = folder / deb.stem
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text().replace(f"Version: {old}\n", f"Version: {new}\n")
    control.write_text(text.replace(f"(= {old})", f"(= {new})"))
    target = folder / deb.name.replace(f"_{old}_", f"_{new}_")
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return target


def _make(debs: Path, output: Path, variables: dict[str, str]) -> None:
    command = [str(SCRIPT), str(debs), str(output)]
    subprocess.run(command, check=True, env=os.environ | variables, stdout=subprocess.DEVNULL)


def _url(name: str) -> str:
    return f"http://127.0.0.1:{PORT}/{name}"


def _differing(one: Path, other: Path) -> set[str]:
    """Return the files that are not the same in both trees, or only in one, by their paths."""
    names = {str(path.relative_to(tree)) for tree in (one, other) for path in tree.rglob("*")}
    files = {name for name in names if not (one / name).is_dir()}
    _, mismatch, missing = filecmp.cmpfiles(one, other, files, shallow=False)
    return {*mismatch, *missing}


# ---- what apt must refuse ------------------------------------------------------------------------


def _unsigned(repository: Path) -> None:
    for name in SIGNATURES:
        (repository / "dists/stable" / name).unlink()


def _signed_by_another(repository: Path) -> None:
    """Make it again with a key that the machine does not know."""
    with tempfile.TemporaryDirectory() as home:
        variables = {"GNUPGHOME": home, "APT_KEY": "=a stranger", "APT_URL": _url("good")}
        environment = os.environ | variables
        generate = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key"]
        subprocess.run([*generate, "a stranger", "ed25519", "sign"], check=True, env=environment)
        debs = Path(home) / "debs"
        debs.mkdir()
        for deb in repository.glob("pool/*/*.deb"):
            shutil.copy(deb, debs)
        _make(debs, repository, variables)
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True, env=environment)


def _other_release(repository: Path) -> None:
    for name in ("InRelease", "Release"):
        _change(repository / "dists/stable" / name, b"Origin: llamad", b"Origin: malady")


def _other_list(repository: Path) -> None:
    """Change every list, also under the name of its sum: apt asks for whichever it likes."""
    for path in (repository / LISTS).rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))


def _other_package(repository: Path) -> None:
    for path in repository.glob("pool/llamad/*.deb"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def _change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data, path
    path.write_bytes(data.replace(old, new))


SPOILED: dict[str, Callable[[Path], None]] = {
    "unsigned": _unsigned,
    "stranger": _signed_by_another,
    "release": _other_release,
    "list": _other_list,
    "package": _other_package,
}
