"""Several boards with real HAProxy, llamad and llamad-http: acceptance 1 and 2 of issue 17.

    python -m boards.check MODEL

As root: makes a network namespace for the front and one for each board, and leaves none. Killed,
drained and restarted are boards while conversations go on through HAProxy; killed and revived are
two while a file of questions is answered by all three.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from boards.conversations import Outcome, converse, hit_rate
from boards.network import FRONT, NAMES, Board, Programs, haproxy_config, run
from clients.running import environment, llamactl_command
from llamad_client import Client

INSIDE = "LLAMAD_BOARDS_INSIDE"
HTTPS = 8444  # of the front; 443 in the file
N_ROWS = 500
BATCH_SECONDS = 1800


def main() -> int:
    """Run the check in a network of its own; return 0 when everything passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=N_ROWS)
    given = parser.parse_args()
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        again = (sys.executable, "-m", "boards.check", *sys.argv[1:])
        os.execvp("unshare", ["unshare", "--net", *again])
    make_front()
    with tempfile.TemporaryDirectory(prefix="boards-") as name, Programs() as programs:
        check(Path(name), given.model.absolute(), given.rows, programs)
    print("boards: passed", flush=True)
    return 0


def make_front() -> None:
    """Give this namespace its address on a bridge to the boards."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "boards", "type", "bridge")
    run("ip", "address", "add", f"{FRONT}/24", "dev", "boards")
    run("ip", "link", "set", "boards", "up")


def check(folder: Path, model: Path, n_rows: int, programs: Programs) -> None:
    """Check everything. Raises AssertionError."""
    keys, key = make_key(folder)
    boards = [Board(number, folder, model, keys, programs) for number in range(len(NAMES))]
    for board in boards:
        board.start()
    for board in boards:
        board.wait_until_ready()
    check_sticky(folder, key, programs)
    check_failures(folder, key, boards, programs)
    check_grpc(folder, boards, programs)
    check_batch(folder, boards, n_rows)


def make_key(folder: Path) -> tuple[Path, str]:
    """Return the file of keys that all boards share, and its key."""
    keys, config = folder / "keys", folder / "http.toml"
    config.write_text(f'[server]\nkeys = "{keys}"\n')
    words = (sys.executable, "-m", "llamad_http", "--config", str(config), "key", "add", "check")
    made = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    return keys, made.stdout.strip().split()[-1]


@contextlib.contextmanager
def front(folder: Path, name: str, programs: Programs, *changes: tuple[str, str]):  # type: ignore[no-untyped-def]
    """Run HAProxy in front of the boards with a file of packaging/haproxy."""
    config = haproxy_config(name, folder, (":443 ", f":{HTTPS} "), *changes)
    process = programs.start(["haproxy", "-db", "-f", str(config)], folder / "haproxy.log")
    try:
        wait_for(lambda: all(states(folder).get(name, "").startswith("UP") for name in NAMES))
        yield
    except BaseException:
        print((folder / "haproxy.log").read_text(), file=sys.stderr)
        raise
    finally:
        process.kill()
        process.wait()


def tell(folder: Path, command: str) -> str:
    """Return what HAProxy's socket for administrators answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{folder}/admin.sock")
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def stat(folder: Path, column: str) -> dict[str, str]:
    """Return a column of HAProxy's statistics for each board."""
    try:
        lines = tell(folder, "show stat").removeprefix("# ").splitlines()
    except OSError:
        return {}
    i = lines[0].split(",").index(column)
    rows = [line.split(",") for line in lines[1:] if line]
    return {row[1]: row[i] for row in rows if row[0] == "boards"}


def states(folder: Path) -> dict[str, str]:
    """Return the state of each board as HAProxy sees it."""
    return stat(folder, "status")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what happens in another process. Raises AssertionError after two minutes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen in two minutes"
        time.sleep(0.1)


def check_sticky(folder: Path, key: str, programs: Programs) -> None:
    """Print the prefix hit rate with stickiness and without, and compare them."""
    rates = {}
    without = ("    stick on ", "    # stick on ")
    for name, changes in (("with", ()), ("without", (without,))):
        with front(folder, "boards-http.cfg", programs, *changes):
            outcomes = converse(HTTPS, key, name=name, n_conversations=20, n_turns=5)
        assert not [outcome for outcome in outcomes if outcome.error], outcomes
        rates[name] = hit_rate(outcomes)
        print(f"prefix hit rate {name} stickiness: {rates[name]:.1%}", flush=True)
    assert rates["with"] > rates["without"]


def check_failures(folder: Path, key: str, boards: list[Board], programs: Programs) -> None:
    """Kill one board, drain one, restart one, while 20 conversations of 10 turns go on."""
    trouble: list[BaseException] = []
    reached = {40: threading.Event(), 80: threading.Event(), 140: threading.Event()}

    def make_trouble() -> None:
        try:
            reached[40].wait()
            boards[0].kill()
            print("pi1 killed", flush=True)
            boards[0].start()
            reached[80].wait()
            boards[0].wait_until_ready()
            tell(folder, "set server boards/pi2 state maint")
            wait_for(lambda: stat(folder, "scur")["pi2"] == "0")
            print("pi2 drained", flush=True)
            boards[1].stop()
            boards[1].start()
            boards[1].wait_until_ready()
            tell(folder, "set server boards/pi2 state ready")
            reached[140].wait()
            boards[2].stop()
            boards[2].start()
            boards[2].wait_until_ready()
            print("pi3 restarted", flush=True)
        except BaseException as error:
            trouble.append(error)

    def on_end(n_ended: int) -> None:
        if n_ended in reached:
            reached[n_ended].set()

    thread = threading.Thread(target=make_trouble)
    with front(folder, "boards-http.cfg", programs):
        thread.start()
        outcomes = converse(
            HTTPS, key, name="failures", n_conversations=20, n_turns=10, on_end=on_end
        )
        thread.join()
        wait_for(lambda: all(state.startswith("UP") for state in list(states(folder).values())))
    assert not trouble, trouble
    report(outcomes)


def report(outcomes: list[Outcome]) -> None:
    """Print what became of the requests. Raises AssertionError for one that was lost."""
    boards = Counter(outcome.board for outcome in outcomes)
    lost = [outcome for outcome in outcomes if outcome.error and not outcome.began]
    cut = [outcome for outcome in outcomes if outcome.error and outcome.began]
    print(
        f"{len(outcomes)} requests: {len(outcomes) - len(lost) - len(cut)} answered, {len(cut)} cut"
        f" behind their beginning, {len(lost)} lost; by board {dict(boards)}; prefix hit rate"
        f" {hit_rate(outcomes):.1%}",
        flush=True,
    )
    for outcome in cut:
        print(f"  cut by {outcome.board}: {outcome.error}", flush=True)
    assert not lost, lost


def check_grpc(folder: Path, boards: list[Board], programs: Programs) -> None:
    """Ask over gRPC with TLS through the front, and a board itself; a killed board is left out."""
    certificate = str(Path(__file__).parents[1] / "clients" / "localhost.pem")
    os.environ |= {"LLAMAD_TLS_CA": certificate, "LLAMAD_TLS_CERT": certificate}
    question = [{"role": "user", "content": "Say hello."}]
    with front(folder, "boards-grpc.cfg", programs), Client("https://localhost:8443") as client:
        texts = {client.chat(question, max_tokens=8, temperature=0).text() for _ in range(9)}
        assert len(texts) == 1, texts
        counts = stat(folder, "stot")
        assert all(int(counts[name]) > 0 for name in NAMES), counts
        boards[2].kill()
        texts |= {client.chat(question, max_tokens=8, temperature=0).text() for _ in range(9)}
        assert len(texts) == 1, texts
        wait_for(lambda: states(folder)["pi3"].startswith("DOWN"))
        print(f"gRPC over TLS: 18 answers, by board {stat(folder, 'stot')}", flush=True)
        boards[2].start()
        boards[2].wait_until_ready()


def check_batch(folder: Path, boards: list[Board], n_rows: int) -> None:
    """Answer a file on three boards while two are killed and come back."""
    rows = [{"id": f"r{i}", "prompt": f"Name {i}.", "max_tokens": 4} for i in range(n_rows)]
    (folder / "in").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "out"
    where = ",".join(str(board.socket) for board in boards)
    words = llamactl_command("--socket", where, "batch", "--temperature", "0")
    log = (folder / "batch.log").open("wb")
    batch = subprocess.Popen(
        [*words, str(folder / "in"), str(out)], stderr=log, stdout=log, env=environment()
    )
    try:
        for board, n_written in ((boards[0], n_rows // 5), (boards[1], n_rows // 2)):
            while batch.poll() is None and count_lines(out) < n_written:
                time.sleep(0.1)
            board.kill()
            print(f"{board.name} killed at row {count_lines(out)}", flush=True)
            board.start()
        code = batch.wait(BATCH_SECONDS)
    finally:
        if batch.poll() is None:
            batch.kill()
            batch.wait()
        log.close()
    said = (folder / "batch.log").read_text()
    print(said, end="", flush=True)
    assert code == 0, code
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert all("text" in answer for answer in answers)
    for board in boards:
        board.wait_until_ready()
    ended = {board.name: ended_jobs(board) for board in boards}
    print(f"{len(answers)} rows in order, each once; jobs ended by board {ended}", flush=True)
    assert all(ended.values()), ended


def ended_jobs(board: Board) -> int:
    """Return how many jobs a board has ended since its last start."""
    with Client(board.socket) as client:
        return sum(job.state == "finished" for job in client.jobs(include_ended=True))


def count_lines(path: Path) -> int:
    """Return the lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
