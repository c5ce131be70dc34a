"""Adding, using, unloading and removing models: the library's calls and llamactl's commands."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from clients.running import RunningService, environment, llamactl_command, running_service
from llamad.errors import ErrorKind, LlamadError
from llamad_client import AddedModel, AsyncClient, Client, Failed, Refused, StillLoading
from llamad_client.upload import MAX_CHUNK_BYTES
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous

# The smallest file with the header of a model (version 3, no metadata, no tensors), and a tail.
MODEL = b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(range(256)) * 40
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.path) as connected:
        yield connected


class Source:
    """A file that is read in pieces from where it is wanted; it tells what was asked of it."""

    def __init__(self, data: bytes = MODEL, *, piece: int = 1000, can_resume: bool = True) -> None:
        self.data = data
        self.piece = piece
        self.can_resume = can_resume
        self.opened: list[int] = []
        self.threads: set[str] = set()
        self.closed = False
        self.error: BaseException | None = None  # raised after half of the data

    def open_at(self, offset: int) -> tuple[int, Iterable[bytes]]:
        self.opened.append(offset)
        begin = offset if self.can_resume else 0
        return begin, self.pieces(begin)

    def pieces(self, begin: int) -> Iterator[bytes]:
        self.threads.add(threading.current_thread().name)
        try:
            for first in range(begin, len(self.data), self.piece):
                if self.error is not None and first >= len(self.data) // 2:
                    raise self.error
                yield self.data[first : first + self.piece]
        finally:
            self.closed = True

    def add_to(self, client: Client, **changes: object) -> AddedModel:
        described = {"file_bytes": len(self.data), "sha256": SHA256, "source": "s", **changes}
        return client.add_model("m", self.open_at, **described)  # type: ignore[arg-type]


def part(service: RunningService) -> Path:
    return service.service.models / ".m.gguf.part"


@pytest.mark.parametrize("piece", [1, 1000, len(MODEL)])
def test_a_model_is_added_in_pieces_of_any_size(
    service: RunningService, client: Client, piece: int
) -> None:
    data = MODEL[:500] if piece == 1 else MODEL
    source = Source(data, piece=piece)
    added = source.add_to(client, sha256="")
    path = service.service.models / "m.gguf"
    sha256 = hashlib.sha256(data).hexdigest()
    assert added == AddedModel("m", str(path), len(data), sha256, unchanged=False)
    assert path.read_bytes() == data
    assert source.opened == [0]
    assert source.threads == {threading.current_thread().name}


def test_pieces_larger_than_a_message_are_cut(service: RunningService, client: Client) -> None:
    data = MODEL + bytes(2 * MAX_CHUNK_BYTES)
    added = Source(data, piece=len(data)).add_to(client, sha256="", file_bytes=None)
    assert added.sha256 == hashlib.sha256(data).hexdigest()


def test_empty_pieces_are_left_out(client: Client) -> None:
    added = client.add_model(
        "m", lambda offset: (0, [b"", MODEL, b""]), file_bytes=None, sha256="", source=""
    )
    assert added.sha256 == SHA256


def test_a_model_that_is_there_is_not_opened(client: Client) -> None:
    Source().add_to(client)
    again = Source()
    assert again.add_to(client).unchanged
    assert again.opened == []


@pytest.mark.parametrize("error", [OSError("the network is gone"), KeyboardInterrupt()])
def test_what_the_source_raises_is_raised_and_what_came_is_kept(
    service: RunningService, client: Client, error: BaseException
) -> None:
    source = Source()
    source.error = error
    with pytest.raises(type(error)) as raised:
        source.add_to(client)
    assert raised.value is error
    source.error = None
    while True:  # the service hears of the end in its own time
        try:
            source.add_to(client)
            break
        except Refused as refused:
            if refused.reason != "TRANSFER_RUNNING":
                raise
    assert (service.service.models / "m.gguf").read_bytes() == MODEL
    assert source.opened[-1] <= len(MODEL) // 2 + source.piece


def test_what_opening_raises_is_raised(client: Client) -> None:
    def refuse(offset: int) -> tuple[int, Iterable[bytes]]:
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        client.add_model("m", refuse, file_bytes=None, sha256="", source="")


def keep_half(client: Client) -> int:
    """Leave half of the model with the service; return its bytes."""
    half = Source(MODEL[: len(MODEL) // 2])
    with pytest.raises(Refused) as error:
        half.add_to(client, file_bytes=len(MODEL))
    assert error.value.reason == "TRANSFER_INCOMPLETE"
    return len(MODEL) // 2


def test_a_transfer_goes_on_where_it_stopped(client: Client) -> None:
    n_kept = keep_half(client)
    source = Source()
    assert source.add_to(client).sha256 == SHA256
    assert source.opened == [n_kept]


KILLED_CLIENT = """
import os, signal, sys
from pathlib import Path
from llamad_client import Client

def pieces():
    yield bytes.fromhex(sys.argv[3])
    part = Path(sys.argv[2])
    while part.stat().st_size < len(sys.argv[3]) // 2:
        pass
    os.kill(os.getpid(), signal.SIGKILL)

Client(sys.argv[1]).add_model(
    "m", lambda offset: (0, pieces()), file_bytes=None, sha256="", source="s"
)
"""


def test_a_killed_client_leaves_its_bytes_even_when_nobody_knows_the_size(
    service: RunningService, client: Client
) -> None:
    half = MODEL[: len(MODEL) // 2]
    command = [sys.executable, "-c", KILLED_CLIENT, str(service.path), str(part(service))]
    killed = subprocess.run([*command, half.hex()], env=environment(), timeout=TIMEOUT_SECONDS)
    assert killed.returncode == -signal.SIGKILL
    source = Source()
    while True:  # the service hears of the end in its own time
        try:
            added = source.add_to(client, file_bytes=None, sha256="")
            break
        except Refused as refused:
            if refused.reason != "TRANSFER_RUNNING":
                raise
    assert added.sha256 == SHA256
    assert source.opened == [len(half)]


def test_a_source_that_cannot_go_on_begins_again(client: Client) -> None:
    n_kept = keep_half(client)
    source = Source(can_resume=False)
    assert source.add_to(client).sha256 == SHA256
    assert source.opened == [n_kept]


def test_a_source_that_begins_anywhere_else_is_a_mistake(client: Client) -> None:
    keep_half(client)
    with pytest.raises(ValueError, match="begins at 7"):
        client.add_model(
            "m",
            lambda offset: (7, [MODEL[7:]]),
            file_bytes=len(MODEL),
            sha256=SHA256,
            source="s",
        )


def test_a_refusal_while_sending_is_raised_and_ends_the_reading(client: Client) -> None:
    source = Source(b"<html>" + bytes(1 << 26), piece=1 << 20)
    with pytest.raises(Failed) as error:
        source.add_to(client, sha256="")
    assert error.value.reason == "MODEL_CORRUPT"
    assert source.closed


def test_a_name_that_is_no_text_is_refused_before_the_call(client: Client) -> None:
    for call in (client.use_model, client.remove_model):
        with pytest.raises(Refused) as error:
            call("\ud800")
        assert error.value.reason == "INVALID_NAME"


def test_models_are_used_unloaded_and_removed(service: RunningService, client: Client) -> None:
    Source().add_to(client)
    used = client.use_model("m")
    assert (used.model.name, used.load_seconds) == ("m", 1.5)
    with pytest.raises(Refused) as error:
        client.remove_model("m")
    assert error.value.reason == "MODEL_IN_USE"
    client.unload_model()
    assert service.service.memory.unloaded == 1
    service.service.memory.used.clear()
    assert client.remove_model("m") == len(MODEL)
    with pytest.raises(Refused) as error:
        client.use_model("m")
    assert error.value.reason == "MODEL_NOT_FOUND"


class AsyncSource(Source):
    """The same for the asyncio client."""

    def open_asynchronously(self, offset: int) -> tuple[int, AsyncIterator[bytes]]:
        begin, pieces = self.open_at(offset)

        async def yield_them() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return begin, yield_them()

    async def add_with(self, client: AsyncClient, **changes: object) -> AddedModel:
        described = {"file_bytes": len(self.data), "sha256": SHA256, "source": "s", **changes}
        return await client.add_model("m", self.open_asynchronously, **described)  # type: ignore[arg-type]


def test_the_asyncio_client_does_the_same(service: RunningService, client: Client) -> None:
    kept = keep_half(client)

    @asynchronous
    async def body() -> None:
        async with AsyncClient(service.path) as same:
            source = AsyncSource()
            added = await source.add_with(same)
            path = str(service.service.models / "m.gguf")
            assert added == AddedModel("m", path, len(MODEL), SHA256, unchanged=False)
            assert source.opened == [kept]
            again = AsyncSource()
            assert (await again.add_with(same)).unchanged
            assert again.opened == []
            assert (await same.use_model("m")).model.name == "m"
            await same.unload_model()
            service.service.memory.used.clear()
            assert await same.remove_model("m") == len(MODEL)

    body()


def test_a_model_that_is_being_changed_is_an_error_of_its_own(
    service: RunningService, client: Client
) -> None:
    def change() -> None:
        service.service.state.loading("loading two")

    service.do(change)
    with pytest.raises(StillLoading):
        client.generate("p").text()


# ---- llamactl --------------------------------------------------------------------------------


def llamactl(service: RunningService, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        llamactl_command("--socket", str(service.path), *arguments),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def test_the_commands_say_what_they_did(service: RunningService, client: Client) -> None:
    Source().add_to(client)
    done = llamactl(service, "use", "m")
    assert (done.returncode, done.stdout) == (0, "m loaded in 1.50 s\n")
    done = llamactl(service, "unload")
    loads = 'fake unloaded; "llamactl use fake" or the next start loads it again\n'
    assert (done.returncode, done.stdout) == (0, loads)
    table = llamactl(service, "models").stdout.splitlines()
    assert table[0].split() == ["NAME", "SIZE", "LOADED", "AT", "START", "PATH"]
    assert table[-1].split()[:4] == ["m", "10.3", "kB", "yes"]
    service.service.memory.used.clear()
    done = llamactl(service, "rm", "m")
    assert (done.returncode, done.stdout) == (0, "m deleted, 10.3 kB freed\n")


def test_with_json_the_commands_print_one_object_a_line(
    service: RunningService, client: Client
) -> None:
    Source().add_to(client)
    used = json.loads(llamactl(service, "--json", "use", "m").stdout)
    assert (used["model"]["name"], used["load_seconds"]) == ("m", 1.5)
    assert json.loads(llamactl(service, "unload", "--json").stdout) == {}
    service.service.memory.used.clear()
    removed = json.loads(llamactl(service, "--json", "rm", "m").stdout)
    assert removed == {"name": "m", "freed_bytes": len(MODEL)}


def test_a_refused_command_exits_with_4_and_says_why(
    service: RunningService, client: Client
) -> None:
    Source().add_to(client)
    done = llamactl(service, "rm", "m", "none")
    assert (done.returncode, done.stdout) == (4, "m deleted, 10.3 kB freed\n")
    assert done.stderr.startswith("llamactl: no model 'none' in ")
    service.service.memory.error = LlamadError(
        ErrorKind.STATE, "BUSY_LOADING", "the service is busy"
    )
    for command in (["use", "m"], ["unload"]):
        done = llamactl(service, *command)
        assert (done.returncode, done.stderr) == (4, "llamactl: the service is busy\n")
