"""schemathesis, unmodified and in an environment of its own, on the gateway by its /openapi.json.

Run by `make http-fuzz`. The service behind is one over a fake engine, so the time goes into the
gateway. It fails for an answer of 500 or above, for one that the description does not have, for a
traceback in the journal, and for a gateway that answers no more.
"""

import argparse
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from clients.running import running_service
from gateway.gateway_process import gateway_process
from llamad_http.authorization import add_key
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

PACKAGE = "schemathesis==4.32.0"
CHECKS = "not_a_server_error,content_type_conformance"
REFUSED_BY_DESIGN = (
    *("/api/copy", "/v1/embeddings", "/embedding", "/api/embed", "/api/embeddings"),
    *("/v1/rerank", "/v1/reranking", "/v2/rerank"),
)
"""Addresses that answer 501: no alias by HTTP, and the fake engine makes no vectors."""


def program(folder: Path) -> Path:
    """Return schemathesis, installed in the folder where it is not yet."""
    found = folder / "bin" / "schemathesis"
    if not found.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", PACKAGE]
        subprocess.run(pip, check=True)
    return found


def main() -> int:
    """Fuzz; return 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the environment")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, help="default: another one each time")
    given = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if given.seed is None else given.seed
    print(f"HTTP_FUZZ_SEED={seed}", flush=True)
    schemathesis = program(given.folder.absolute())
    with tempfile.TemporaryDirectory() as name, running_service() as service:
        service.engine.rule = saying("An answer.")
        folder = Path(name)
        key = add_key(folder / "keys", "fuzz", "normal", True)
        with gateway_process(folder, service.path) as gateway:
            excluded = [f"--exclude-path={path}" for path in REFUSED_BY_DESIGN]
            command = [str(schemathesis), "run", f"{gateway.url}/openapi.json", "-c", CHECKS]
            command += ["-H", f"Authorization:Bearer {key}", "--seed", str(seed), *excluded]
            command += ["--max-time", str(given.seconds), "--continue-on-failure", "--no-color"]
            done = subprocess.run(command, cwd=folder, check=False)
            url = gateway.url + "/health"
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
                alive = answer.status == 200
            faults = [x for x in gateway.lines if "Traceback" in x or "status=500" in x]
    print("\n".join(faults), f"alive={alive}", sep="\n")
    return 0 if done.returncode == 0 and alive and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
