"""Home Assistant from PyPI, in a Debian of its own, because it needs a newer Python than ours.

Owns which release, and what of it is installed: the integrations that the check uses, with what
their manifests name, pinned by the release itself. The folder stays, so a second run fetches
nothing. Runs as root.
"""

import os
import shutil
import subprocess
from pathlib import Path

VERSION = "2026.11.0"
SUITE = "forky"  # Debian 14, for Python 3.14
DEBIAN_PACKAGES = ("python3", "python3-venv", "python3-dev", "g++", "ca-certificates")
INTEGRATIONS = (
    *("http", "api", "config", "onboarding", "conversation", "input_boolean", "template"),
    *("ollama", "llama_cpp", "wyoming", "ai_task"),
    *("stream", "hassio", "cloud"),  # others import these without saying so
)
ENVIRONMENT = "/opt/home-assistant"  # in the root
HOST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/hosts", "/etc/resolv.conf")

# Runs in the environment: prints what the integrations need, those that are always there, and all
# that they depend on. Without one of them Home Assistant starts in its recovery mode.
REQUIREMENTS = """
import json, sys, homeassistant
from pathlib import Path
from homeassistant import bootstrap, const
components = Path(homeassistant.__file__).parent / "components"
found, left = {}, [*sys.argv[1:], *bootstrap.DEFAULT_INTEGRATIONS, *map(str, const.Platform)]
while left:
    name = left.pop()
    if name not in found:
        manifest = json.loads((components / name / "manifest.json").read_text())
        found[name] = manifest.get("requirements", [])
        left += manifest.get("dependencies", [])
print(*sorted({package for packages in found.values() for package in packages}))
print(components.parent / "package_constraints.txt")
"""


def install(folder: Path) -> Path:
    """Return the root folder of a Debian with Home Assistant, made where it is not there."""
    root = folder / f"root-{VERSION}"
    if (root / ".installed").exists():
        return root
    if os.geteuid() != 0:
        raise SystemExit("home-assistant-check: makes a Debian root, which only root can do")
    shutil.rmtree(root, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making a Debian {SUITE} in {root}", flush=True)
    make_root(root)
    for file in HOST_FILES:  # certificates of this machine: what pip asks may be behind a proxy
        shutil.copy(file, root / file.lstrip("/"))
    print(f"installing Home Assistant {VERSION}", flush=True)
    run_in(root, "python3", "-m", "venv", ENVIRONMENT)
    pip = (f"{ENVIRONMENT}/bin/pip", "install", "--quiet", "--no-cache-dir")
    run_in(root, *pip, f"homeassistant=={VERSION}")
    printed = run_in(root, f"{ENVIRONMENT}/bin/python", "-c", REQUIREMENTS, *INTEGRATIONS)
    packages, constraints = printed.splitlines()
    run_in(root, *pip, "--constraint", constraints, *packages.split())
    (root / ".installed").touch()
    return root


def make_root(root: Path) -> None:
    """Make the root folder of a Debian, from the mirror that this machine uses."""
    targets = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Release: bookworm")
    mirror = subprocess.run(targets, check=True, capture_output=True, text=True).stdout.split()[0]
    source = f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {SUITE} main"
    # A mirror may be a snapshot whose date has passed; its signature is checked all the same.
    old = '--aptopt=Acquire::Check-Valid-Until "false"'
    include = f"--include={','.join(DEBIAN_PACKAGES)}"
    command = ("mmdebstrap", "--quiet", "--variant=apt", old, include, SUITE, str(root), source)
    subprocess.run(command, check=True)


def run_in(root: Path, *command: str) -> str:
    """Run a command in a root folder; return what it printed."""
    done = subprocess.run(["chroot", root, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
