"""What ``make crash`` asserts of durable jobs: whatever is killed, they end with the same text.

Twenty jobs on the demo model, and clients that ask beside them. The service is killed with SIGKILL
at random moments and started again, ``--kills`` times. At the end every job has the text of a run
that nothing interrupted, the database opened each time, no block of a saved prefix was half a file
after any kill, and who asked again for a prompt whose beginning was saved got the same answer. As
root the same again on a file system that forgets at each kill what was not synced
(forgetful_disk.py), and there too a disk that refuses to be written, from the start or while a job
runs: the service serves, says why nothing is stored, and stores again when it can. Times are
printed, not asserted.
"""

import argparse
import errno
import hashlib
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.daemon_process import Daemon, daemon
from crash.forgetful_disk import ForgetfulDisk
from llamad.store.block_file import HEADER_BYTES, SUFFIX, SUM_BYTES
from llamad_client import Client, ClientError, Refused, TextDelta

N_JOBS = 20
OTHER_PROMPT = "Part {}. " + "Once upon a time there was a house by the sea. " * 12
N_PINS = 8
LONGEST = N_JOBS - 1
MOST_UP_SECONDS = 3.0  # between READY and a kill
# A job is given up that no token is stored of in three starts in a row: one of three lasts so long.
LEAST_UP_SECONDS = 1.0
TOPICS = ("the sea", "a clock", "bread", "Ferrara", "a lighthouse", "rain", "the moon", "a train")


def asked(number: int) -> dict[str, Any]:
    """Return what one job asks for: lengths and ways of drawing differ."""
    topic = TOPICS[number % len(TOPICS)]
    prompt = f"Write a story about {topic}. " * (1 + 6 * (number % 3))
    return {
        "prompt": prompt if number % 2 else [{"role": "user", "content": prompt}],
        "max_tokens": 100 + 15 * number,
        "seed": number,
        "temperature": 0.0 if number % 5 == 0 else 0.8,
        "repeat_penalty": 1.1,
        **({"stop": ["the end", "The end"]} if number % 4 == 0 else {}),
    }


@dataclass
class Seen:
    """What happened."""

    ready_seconds: list[float] = field(default_factory=list)
    lost_tokens: int = 0  # that were told and computed again
    blocks: int = 0  # of saved prefixes, over all kills
    read_bytes: int = 0  # of them that were used after a start
    answers: dict[int, str] = field(default_factory=dict)  # of attached requests, by their number
    faults: list[str] = field(default_factory=list)


class Service:
    """The service on one state directory, started again and again."""

    def __init__(self, folder: Path, state: Path, model: Path) -> None:
        self.folder = folder
        configuration = folder / "llamad.toml"
        configuration.write_text(f'[service]\nstate_directory = "{state}"\n', encoding="utf-8")
        self._flags = ["--config", os.fspath(configuration), "--model", os.fspath(model)]

    @contextmanager
    def run(self) -> Iterator[Daemon]:
        """Run it until the block ends; then it is killed if it still lives."""
        with daemon(self.folder, *self._flags) as running:
            yield running


def wait_until_serving(client: Client, running: Daemon) -> float:
    """Return the seconds after which the model is served."""
    began = time.monotonic()
    while True:
        try:
            if client.status().state == "ready":
                return time.monotonic() - began
        except ClientError:
            pass
        if running.process.poll() is not None:
            raise AssertionError(running.log.read_text(encoding="utf-8"))
        time.sleep(0.02)


def submit_all(client: Client) -> list[str]:
    """Submit the jobs, each under its key; return their ids. Known ones are the same."""
    return [client.submit(**asked(i), idempotency_key=f"crash-{i}").job.id for i in range(N_JOBS)]


def texts(client: Client, ids: list[str]) -> list[str]:
    """Wait for the answers; return them."""
    return [client.resume(job_id).text() for job_id in ids]


def disturb(path: Path, seen: Seen, until: threading.Event) -> None:
    """Ask beside the jobs, as attached clients do, and have prompts saved, until told to stop.

    Every second prompt is one that was asked before, often of a service that was killed since.
    """
    with Client(path) as client:
        for turn in itertools.count():
            if until.is_set():
                return
            known = len(seen.answers)
            part = turn * 7 % known if known and turn % 2 else known
            try:
                text = client.generate(
                    OTHER_PROMPT.format(part),
                    max_tokens=8,
                    temperature=0.0,
                    pin=f"part-{part % N_PINS}",
                    priority="interactive",
                ).text()
            except ClientError:
                until.wait(0.05)
                continue
            if seen.answers.setdefault(part, text) != text:
                seen.faults.append(f"{text!r} is another answer than {seen.answers[part]!r}")


def crash(
    service: Service, state: Path, kills: int, seed: int, cut: Callable[[], None]
) -> tuple[list[str], Seen]:
    """Submit, kill and start again; return the texts at the end."""
    rng, seen, before = random.Random(seed), Seen(), dict[str, int]()
    up_seconds: list[float] = []
    for number in range(kills + 1):
        stop = threading.Event()
        with service.run() as running, Client(running.socket) as client:
            seen.ready_seconds.append(wait_until_serving(client, running))
            status = client.status()
            if status.durability:
                seen.faults.append(status.durability)
            if status.prefix is not None:
                seen.read_bytes += status.prefix.bytes_read
            for job in client.jobs():
                seen.lost_tokens += max(0, before.get(job.id, 0) - job.completion_tokens)
            asking = threading.Thread(target=disturb, args=(running.socket, seen, stop))
            asking.start()
            try:
                if number == kills:
                    ids = submit_all(client)
                    return texts(client, ids), seen
                short = len(up_seconds) > 1 and max(up_seconds[-2:]) < LEAST_UP_SECONDS
                up_seconds.append(rng.uniform(LEAST_UP_SECONDS * short, MOST_UP_SECONDS))
                killer = threading.Timer(up_seconds[-1], running.process.kill)
                killer.start()
                try:
                    submit_all(client)
                    while running.process.poll() is None:
                        before = {j.id: j.completion_tokens for j in client.jobs()}
                        time.sleep(0.05)
                except ClientError:
                    pass
                killer.join()
            finally:
                stop.set()
                asking.join()
        cut()
        check_prefixes(state, seen)
    raise AssertionError("not reached")


def check_prefixes(state: Path, seen: Seen) -> None:
    """Take note of the blocks of prefixes that are saved, and of half ones among them."""
    for path in (state / "prefixes").rglob(f"*{SUFFIX}"):
        seen.blocks += 1
        data = path.read_bytes()
        told = data[HEADER_BYTES - 2 * SUM_BYTES : HEADER_BYTES - SUM_BYTES]
        if hashlib.blake2b(data[HEADER_BYTES:], digest_size=SUM_BYTES).digest() != told:
            seen.faults.append(f"half a block: {path.name}, {len(data)} bytes")


def refused_at_start(service: Service, disk: ForgetfulDisk, code: int) -> list[str]:
    """Start on a disk that refuses to be written; return what is wrong."""
    disk.refusal = code
    with service.run() as running, Client(running.socket) as client:
        wait_until_serving(client, running)
        wrong = without_durability(client, os.strerror(code))
    disk.refusal = 0
    return wrong


def refused_meanwhile(service: Service, disk: ForgetfulDisk, code: int, expected: str) -> list[str]:
    """Let the disk refuse while a job runs, and then no longer; return what is wrong."""
    wrong = []
    key = f"refused-{code}"
    with service.run() as running, Client(running.socket) as client:
        wait_until_serving(client, running)
        job = client.submit(**asked(LONGEST), idempotency_key=key).job
        for event in client.resume(job.id):
            if isinstance(event, TextDelta):
                break
        disk.refusal = code
        if client.resume(job.id).text() != expected:
            wrong.append("the job that ran has another text")
        while not client.status().durability:  # it tries to store each second
            time.sleep(0.05)
        wrong += without_durability(client, "jobs.sqlite")
        disk.refusal = 0
        while client.status().durability:  # and after a failure each ten
            time.sleep(0.05)
        while client.status().jobs_stored:
            time.sleep(0.05)
        running.process.kill()
        running.process.wait()
    disk.cut()
    with service.run() as running, Client(running.socket) as client:
        wait_until_serving(client, running)
        again = client.submit(**asked(LONGEST), idempotency_key=key)
        if not again.existing or client.resume(job.id).text() != expected:
            wrong.append("the job's end was not stored when the disk took it again")
    return wrong


def without_durability(client: Client, why: str) -> list[str]:
    """Return what is wrong with a service that can store nothing."""
    wrong = []
    if why not in client.status().durability:
        wrong.append(f"the status says {client.status().durability!r}, and not {why!r}")
    if not client.generate("Once upon a time", max_tokens=4).text():
        wrong.append("nothing is served")
    try:
        client.submit("Once upon a time", max_tokens=4)
    except Refused as error:
        if error.reason != "NOT_DURABLE":
            wrong.append(f"a job is refused with {error.reason}")
    else:
        wrong.append("a job is taken that is not stored")
    return wrong


def report(name: str, expected: list[str], got: list[str], seen: Seen, folder: Path) -> list[str]:
    """Print the figures; return what is wrong."""
    times = sorted(seen.ready_seconds)
    print(
        f"{name}: {len(times) - 1} kills, {len(got)} jobs; READY after"
        f" {times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s at most;"
        f" {seen.lost_tokens} tokens computed again; {seen.blocks} blocks of prefixes found,"
        f" {seen.read_bytes} bytes of them read at starts,"
        f" {len(seen.answers)} attached answers compared"
    )
    wrong = [f"{name}: job {i} differs" for i in range(N_JOBS) if expected[i] != got[i]]
    wrong += [f"{name}: {fault}" for fault in seen.faults]
    if not seen.read_bytes:
        wrong.append(f"{name}: no saved prefix was read after a kill, so none was checked")
    wrong += [f"{name}: set aside: {path.name}" for path in folder.glob("*.broken-*")]
    return wrong


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Durable jobs under SIGKILL and power cuts.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("whole", "killed", "cut")]
        for folder in folders:
            (folder / "state").mkdir(parents=True)
        services = [Service(f, f / "state", arguments.model) for f in folders]
        with services[0].run() as running, Client(running.socket) as client:
            wait_until_serving(client, running)
            expected = texts(client, submit_all(client))
        print(f"uninterrupted: {sum(map(len, expected))} characters in {N_JOBS} answers")
        state = folders[1] / "state"
        got, seen = crash(services[1], state, arguments.kills, arguments.seed, lambda: None)
        wrong += report("SIGKILL", expected, got, seen, state)
        if os.geteuid() == 0 and Path("/dev/fuse").exists():
            state = folders[2] / "state"
            disk = ForgetfulDisk(state)
            disk.open()
            try:
                seed = arguments.seed + 1
                got, seen = crash(services[2], state, arguments.kills, seed, disk.cut)
                wrong += report("power cut", expected, got, seen, state)
                print(
                    f"power cut: {disk.lost_bytes} bytes and {disk.lost_names} names were"
                    f" forgotten, {disk.syncs} syncs"
                )
                for code in (errno.EROFS, errno.ENOSPC):
                    found = refused_at_start(services[2], disk, code)
                    found += refused_meanwhile(services[2], disk, code, expected[LONGEST])
                    wrong += [f"{os.strerror(code)}: {fault}" for fault in found]
                    print(f"{os.strerror(code)}: served, not stored, stored again")
            finally:
                disk.close()
        else:
            print("power cut: not checked, because that needs root and /dev/fuse")
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
