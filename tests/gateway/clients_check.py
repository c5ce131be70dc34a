"""Unmodified clients, each in an environment of its own, against the gateway and a real service.

Run by `make clients-check`. Owns which clients there are and in which versions; what each does
stands in ``clients/``. It also runs the gateway's tests with a current uvicorn. Environments stay
in the folder that is given, so a second run fetches nothing.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.daemon_process import daemon
from gateway.gateway_process import LIBRARIES, GatewayProcess, gateway_process
from tiny_encoder import TinyEncoder

SCRIPTS = Path(__file__).parent / "clients"
IDLE_SECONDS = 5  # less than a job takes that nobody ends: the rest of a context
CURRENT_UVICORN = ("uvicorn==0.54.0", "h11==0.16.0")


@dataclass(frozen=True, slots=True)
class Client:
    """A script of ``clients/`` and the packages that it needs.

    without: packages that the only one asks for, and does without. Such a client is large, and runs
    only by its name.
    """

    script: str
    packages: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the script."""
        return self.script.partition(".")[0]

    @property
    def is_npm(self) -> bool:
        """Whether the packages are npm's."""
        return self.script.endswith(".mjs")


CLIENTS = (
    Client("openai_python.py", ("openai==3.57.0",)),
    Client("anthropic_python.py", ("anthropic==2.14.0",)),
    Client("ollama_python.py", ("ollama==0.6.3",)),
    Client("llm_plugin.py", ("llm==0.36", "llm-ollama==0.19.1")),
    Client("litellm_both.py", ("litellm==1.110.2",)),
    Client("langchain_both.py", ("langchain-openai==1.7.4", "langchain-ollama==1.1.0")),
    Client("npm_both.mjs", ("ollama@0.6.4", "openai@7.57.0")),
    Client(
        "open_webui.py",
        ("open-webui==0.12.4",),
        (  # PyTorch, and what reads pictures, sound and other databases
            *("accelerate", "einops", "faster-whisper", "sentence-transformers", "transformers"),
            *("opencv-python-headless", "rapidocr", "pyarrow", "opensearch-py"),
            *("psycopg", "pymysql"),
        ),
    ),
)

# Prints what a package asks for, without its extras and without the names behind it.
REQUIREMENTS = r"""
import importlib.metadata, re, sys
name, *without = sys.argv[1:]
for line in importlib.metadata.requires(name):
    if "extra ==" not in line and re.match(r"[\w.-]+", line)[0].lower() not in without:
        print(line)
"""


def command(client: Client, folder: Path) -> list[str]:
    """Return how the script is run, after its environment was made."""
    home = folder / client.name
    stamp = home / ".installed"
    wanted = " ".join(client.packages)
    fresh = not stamp.exists() or stamp.read_text() != wanted
    if client.is_npm:
        if fresh:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            (home / "package.json").write_text('{"private": true}')
            run(["npm", "install", "--no-audit", "--no-fund", *client.packages], home)
        shutil.copy(SCRIPTS / client.script, home)
        done = ["node", str(home / client.script)]
    else:
        python = str(home / "bin" / "python")
        if fresh:
            run([sys.executable, "-m", "venv", "--clear", str(home)], folder)
            pip = [python, "-m", "pip", "install", "--quiet"]
            if client.without:
                run([*pip, "--no-deps", *client.packages], folder)
                name = client.packages[0].partition("==")[0]
                asked = run([python, "-c", REQUIREMENTS, name, *client.without], folder)
                run([*pip, *asked.splitlines()], folder)
            else:
                run([*pip, *client.packages], folder)
        done = [python, str(SCRIPTS / client.script)]
    stamp.write_text(wanted)
    return done


def run(arguments: Sequence[str], folder: Path) -> str:
    """Run a command and return what it printed. Raises CalledProcessError."""
    done = subprocess.run(arguments, cwd=folder, check=True, text=True, capture_output=True)
    return done.stdout


def check_clients(model: Path, folder: Path, names: Sequence[str]) -> bool:
    """Run the clients; print a line for each; return whether all passed."""
    passed = True
    with (
        tempfile.TemporaryDirectory() as name,
        served(Path(name), model) as gateway,
        tempfile.TemporaryDirectory() as other,
        served(Path(other), TinyEncoder().write(Path(other) / "vectors.gguf")) as vectors,
    ):
        changes = {"GATEWAY": gateway.url, "MODEL": model.stem, "VECTORS": vectors.url}
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | changes
        for client in CLIENTS:
            if client.name in names or not (names or client.without):
                passed &= check(client, folder, environment)
                wait_until_idle(gateway)
            elif not names:
                print(f"left out  {client.packages[0]}: large, CLIENTS={client.name} runs it")
        lines = [*gateway.lines, *vectors.lines]
        errors = [line for line in lines if "Traceback" in line or "status=500" in line]
        print("\n".join(errors), end="\n" if errors else "")
    return passed and not errors


@contextlib.contextmanager
def served(folder: Path, model: Path) -> Iterator[GatewayProcess]:
    """Run a service with a model, and a gateway before it."""
    folder.mkdir(exist_ok=True)
    with daemon(folder, "--model", str(model), "--ctx-size", "1024") as service:
        service.wait_until_ready()
        with gateway_process(folder, service.socket) as gateway:
            yield gateway


def wait_until_idle(gateway: GatewayProcess) -> None:
    """Return once no job is left: who gave up or left ended theirs. Raises TimeoutError."""
    end = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < end:
        with urllib.request.urlopen(gateway.url + "/slots", timeout=IDLE_SECONDS) as answer:
            if not any(slot["is_processing"] for slot in json.load(answer)):
                return
        time.sleep(0.1)
    raise TimeoutError(f"a job goes on {IDLE_SECONDS} s after its client left")


def check(client: Client, folder: Path, environment: dict[str, str]) -> bool:
    """Run one client in a folder of its own; print how it went; return whether it passed."""
    packages = " ".join(client.packages)
    if client.is_npm and shutil.which("npm") is None:
        print(f"left out  {packages}: npm is not installed")
        return True
    try:
        line = command(client, folder)
    except subprocess.CalledProcessError as error:
        print(f"FAILED    {packages}: cannot be installed\n{error.stderr}")
        return False
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            line, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
    outcome = "passed" if done.returncode == 0 else "FAILED"
    print(f"{outcome:9} {packages} ({time.monotonic() - began:.1f} s)", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr)
    return done.returncode == 0


def check_current_uvicorn(folder: Path) -> bool:
    """Run the gateway's tests with a current uvicorn; return whether they passed."""
    place = folder / "uvicorn"
    if not place.exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place))
        run([*pip, *CURRENT_UVICORN], folder)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(SCRIPTS.parent)],
        env={**os.environ, LIBRARIES: str(place)},
        check=False,
    )
    print(f"{'passed' if done.returncode == 0 else 'FAILED':9} tests with {CURRENT_UVICORN[0]}")
    return done.returncode == 0


def main() -> int:
    """Run the check; return 0 when everything passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="for the environments")
    parser.add_argument("names", nargs="*", help="of scripts; default: all, and the tests")
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    passed = check_clients(given.model.absolute(), folder, given.names)
    if not given.names:
        passed &= check_current_uvicorn(folder)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
