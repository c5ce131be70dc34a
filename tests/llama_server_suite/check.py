"""llama.cpp's tests of llama-server, unmodified, on our gateway.

Run by ``make llama-server-tests``. The tests come out of the source distribution of the PyPI
package ``llama-cpp-python`` and run in an environment of their own; they start ``stand_in.py``
where they would start llama-server. Owns which of their files are about HTTP. ``differences.toml``
says which tests our gateway does not pass, by decision, and with which words each fails.

It fails for a test that fails otherwise, and for a difference that is none any more.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.running import environment
from llama_cpp_source import SOURCE
from llama_server_suite.stand_in import PROGRAM
from source_distribution import SourceDistribution

TESTS = SourceDistribution(
    SOURCE.package,
    SOURCE.version,
    SOURCE.sha256,
    "vendor/llama.cpp/tools/server/tests",
    SOURCE.folder.with_name("llama-server-tests"),
)
DIFFERENCES = Path(__file__).with_name("differences.toml")
STAND_IN = "llama_server_suite.stand_in"

FILES = (
    *("basic", "completion", "chat_completion", "tokenize", "template", "security", "metrics"),
    *("stream", "ignore_eos", "tool_call", "embedding", "rerank"),
    *("compat_anthropic", "compat_gcp", "compat_oai_responses"),
)
"""The files that are about HTTP; the others are about slots, drafts, pictures and tools of it."""

LEFT_OUT = "test_anthropic_vision_base64_with_multimodal_model"
"""Fetches a picture from the internet before it asks anything."""

PACKAGES = (
    *("aiohttp==3.9.5", "pytest==8.3.5", "filelock==3.16.1", "numpy==2.2.6", "openai==2.14.0"),
    *("requests==2.32.5", "wget==3.2"),
)
"""What their requirements.txt asks for, as far as these files use it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a test of theirs went. result: passed, failed or skipped."""

    test: str
    result: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that we do not pass. message: words of its failure."""

    reason: str
    message: str


def python(folder: Path) -> Path:
    """Return the interpreter that has their packages."""
    found = folder / "bin" / "python"
    stamp = folder / ".installed"
    if not stamp.exists() or stamp.read_text() != repr(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(found), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        stamp.write_text(repr(PACKAGES))
    return found


@contextlib.contextmanager
def stand_in(folder: Path) -> Iterator[Path]:
    """Run what answers in the place of llama-server; return the program to start."""
    place, program = folder / "place", folder / "llama-server"
    program.write_text(PROGRAM.format(python=sys.executable, place=str(place)))
    program.chmod(0o755)
    command = [sys.executable, "-m", STAND_IN, str(SOURCE.folder / "templates")]
    with (TESTS.folder / "stand-in.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(place)], env=environment(), stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        while not place.exists():
            assert process.poll() is None, "the stand-in has ended"
            time.sleep(0.1)
        yield program
    finally:
        process.kill()
        process.wait()


def run_tests(interpreter: Path, selected: Sequence[str]) -> list[Outcome]:
    """Run their tests one after the other; return how each went."""
    report = TESTS.folder / "report.xml"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(interpreter), "-m", "pytest", "-q", "--tb=short", f"--junitxml={report}"]
    command += ["-o", "junit_logging=no", "-m", "not slow", "-k", f"not {LEFT_OUT}"]
    chosen = selected or [f"unit/test_{name}.py" for name in FILES]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as program:
        changes = {"LLAMA_SERVER_BIN_PATH": str(program), "PORT": str(port)}
        subprocess.run([*command, *chosen], cwd=TESTS.folder, env=kept | changes, check=False)
    return list(read_report(report))


def read_report(path: Path) -> Iterable[Outcome]:
    """Yield the outcomes of a report of pytest's."""
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        file = case.attrib["classname"].rpartition(".")[2]
        test = f"{file.removeprefix('test_')}::{case.attrib['name']}"
        faults = [part for part in case if part.tag in ("failure", "error")]
        if faults:
            yield Outcome(test, "failed", "\n".join(part.text or "" for part in faults))
        elif case.find("skipped") is not None:
            yield Outcome(test, "skipped")
        else:
            yield Outcome(test, "passed")


def read_differences() -> dict[str, Difference]:
    """Return what is known to fail, by the test's name or its beginning."""
    with DIFFERENCES.open("rb") as file:
        entries = tomllib.load(file)["difference"]
    return {
        test: Difference(entry["reason"], message)
        for entry in entries
        for message, tests in entry["fails_with"].items()
        for test in tests
    }


def known(test: str, differences: Mapping[str, Difference]) -> str | None:
    """Return the key of the difference that a test is, None for none."""
    function = test.partition("[")[0]
    keys = (key for key in differences if key == function or ("[" in key and test.startswith(key)))
    return next(keys, None)


def judge(outcomes: Sequence[Outcome], differences: Mapping[str, Difference]) -> list[str]:
    """Print a table; return what is wrong, a line for each."""
    wrong: list[str] = []
    counts: dict[str, Counter[str]] = {}
    met: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for outcome in outcomes:
        key = known(outcome.test, differences)
        verdict = outcome.result
        if verdict == "failed" and key is not None:
            if differences[key].message in outcome.message:
                verdict = "differs"
                met[key] += 1
                reasons[differences[key].reason] += 1
            else:
                wrong.append(f"{outcome.test} fails otherwise than differences.toml says")
        elif verdict == "failed":
            wrong.append(f"{outcome.test} fails")
        counts.setdefault(outcome.test.partition("::")[0], Counter())[verdict] += 1
    ran = {known(outcome.test, differences) for outcome in outcomes}
    for key in ran - met.keys():
        if key is not None and not any(line.startswith(key) for line in wrong):
            wrong.append(f"{key} passes: take it out of differences.toml")
    columns = ("passed", "differs", "skipped", "failed")
    print(f"{'file':24}" + "".join(f"{column:>9}" for column in columns))
    total: Counter[str] = Counter()
    for file, count in counts.items():
        total += count
        print(f"{file:24}" + "".join(f"{count[column]:9}" for column in columns))
    print(f"{'all':24}" + "".join(f"{total[column]:9}" for column in columns))
    for reason, n in reasons.most_common():
        print(f"differs {n:4}  {reason}")
    return wrong


def main() -> int:
    """Run the tests; return 0 where everything is as differences.toml says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the environment")
    parser.add_argument("tests", nargs="*", help="as pytest has them: unit/test_basic.py")
    given = parser.parse_args()
    SOURCE.fetch()
    TESTS.fetch()
    interpreter = python(given.folder.absolute())
    outcomes = run_tests(interpreter, given.tests)
    wrong = judge(outcomes, read_differences())
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
