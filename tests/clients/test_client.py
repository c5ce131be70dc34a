"""The client library, synchronous and asyncio, against a real server over a fake engine."""

import asyncio
import grp
import pwd
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llamad
import llamad_client
from clients.running import RunningService, running_service
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.record import JobState
from llamad_client import (
    AsyncClient,
    Client,
    Failed,
    NoPermission,
    NotRunning,
    Queued,
    Refused,
    Result,
    ServiceUnreachable,
    StillLoading,
    address,
)
from llamad_client.address import diagnose, read_address
from llamad_client.aio import AsyncCompletion
from llamad_client.request import submit_request
from unit.schedule.fakes import TIMEOUT_SECONDS, asynchronous, saying


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.path) as connected:
        yield connected


def test_generate_yields_text_and_then_has_a_result(
    service: RunningService, client: Client
) -> None:
    service.engine.rule = saying("grüß dich")
    completion = client.generate("hi", seed=9, temperature=0)
    assert completion.result is None
    assert "".join(completion) == "grüß dich"
    result = completion.result
    assert result is not None
    assert (result.finish_reason, result.seed, result.model) == ("stop", 9, "fake")
    assert (result.prompt_tokens, result.completion_tokens) == (2, 12)
    assert result.timings.load_seconds == 1.5


def test_the_tokens_of_a_prompt_are_as_good_as_its_text(
    service: RunningService, client: Client
) -> None:
    prompts = ("hello", client.tokenize("hello"))
    completions = [client.generate(prompt, seed=1) for prompt in prompts]
    texts = [completion.text() for completion in completions]
    assert texts[0] == texts[1] != ""
    assert [one.result and one.result.prompt_tokens for one in completions] == [5, 5]
    submitted = submit_request([5, 6], False, "", {}).generate
    assert (submitted.prompt, list(submitted.prompt_tokens)) == ("", [5, 6])


def test_chat_sends_the_roles(service: RunningService, client: Client) -> None:
    service.engine.rule = saying("ok")
    completion = client.chat([{"role": "user", "content": "u"}])
    assert completion.text() == "ok"
    assert completion.result is not None
    assert completion.result.prompt_tokens == len("user:u|")


def test_next_returns_one_piece_at_a_time(service: RunningService, client: Client) -> None:
    service.engine.rule = saying("abc")
    completion = client.generate("p")
    pieces = [next(completion)]
    pieces += list(completion)
    assert "".join(pieces) == "abc"
    with pytest.raises(StopIteration):
        next(completion)


def test_every_option_arrives(service: RunningService, client: Client) -> None:
    service.engine.rule = saying("one END")
    events = list(
        client.generate(
            "p",
            max_tokens=50,
            stop=["END"],
            priority="batch",
            top_k=3,
            logit_bias={5: 1.5},
            deadline_seconds=60.0,
            model="fake",
        ).events()
    )
    assert isinstance(events[0], Queued)
    assert isinstance(events[-1], Result)
    assert events[-1].stop_string == "END"
    [job] = client.jobs(include_ended=True)
    assert (job.priority, job.max_tokens) == ("batch", 50)


def test_a_cancelled_completion_ends_and_frees_the_job(
    service: RunningService, client: Client
) -> None:
    entered = service.pause_step(2)
    with client.generate("p") as completion:
        next(completion)
        assert entered.wait(TIMEOUT_SECONDS)
    assert list(completion) == []
    assert completion.result is None
    [job] = service.wait_until_idle()
    assert job.state is JobState.CANCELLED


def test_a_job_cancelled_by_id_finishes_as_cancelled(
    service: RunningService, client: Client
) -> None:
    entered = service.pause_step(1)
    completion = client.generate("p")
    events = completion.events()
    queued = next(events)
    assert isinstance(queued, Queued)
    assert entered.wait(TIMEOUT_SECONDS)
    assert client.cancel(queued.job_id).state == "cancelled"
    list(events)
    assert completion.result is not None
    assert completion.result.finish_reason == "cancelled"


def test_the_other_calls(service: RunningService, client: Client) -> None:
    assert client.tokenize("aü") == list("aü".encode())
    assert client.token_pieces("a") == [(97, b"a")]
    assert client.detokenize([97, 98]) == "ab"
    assert (model := client.status().model) is not None
    assert model.name == "fake"
    assert client.version().version == llamad.__version__
    assert [model.name for model in client.models()] == ["fake"]
    assert client.health() == "SERVING"
    assert client.jobs() == []


def test_threads_may_share_a_client(service: RunningService, client: Client) -> None:
    texts: list[str] = []

    def ask(number: int) -> None:
        texts.append(client.generate(f"p{number}", seed=1, max_tokens=8).text())

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert [len(text) for text in texts] == [8] * 8


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": -1.0}, "INVALID_TEMPERATURE"),
        ({"top_k": 2**40}, "INVALID_TOP_K"),
        ({"seed": -1}, "INVALID_SEED"),
        ({"seed": "many"}, "INVALID_SEED"),
        ({"max_tokens": 0}, "INVALID_MAX_TOKENS"),
        ({"priority": "urgent"}, "INVALID_PRIORITY"),
        ({"stop": [""]}, "INVALID_STOP"),
        ({"logit_bias": {2**40: 1.0}}, "INVALID_LOGIT_BIAS"),
    ],
)
def test_a_bad_option_is_refused_by_name_here_or_there(
    client: Client, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused) as caught:
        client.generate("p", **options).text()
    assert caught.value.reason == reason
    assert reason.removeprefix("INVALID_").lower() in caught.value.message


def test_a_wrong_choice_is_told_what_there_is(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        client.generate("p", priority="urgent")  # type: ignore[arg-type]
    told = "priority: is 'urgent', must be one of interactive, normal, batch"
    assert caught.value.message == told


def test_text_that_is_no_unicode_is_refused(client: Client) -> None:
    with pytest.raises(Refused, match="prompt: is no valid UTF-8"):
        client.generate("\udcff")
    with pytest.raises(Refused, match="content: is no valid UTF-8"):
        client.chat([{"role": "user", "content": "\ud800"}])


def test_an_option_that_does_not_exist_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError, match="wisdom"):
        client.generate("p", wisdom=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ErrorKind.INVALID, Refused),
        (ErrorKind.NOT_FOUND, Refused),
        (ErrorKind.STATE, Refused),
        (ErrorKind.EXHAUSTED, Refused),
        (ErrorKind.UNAVAILABLE, ServiceUnreachable),
        (ErrorKind.CORRUPT, Failed),
        (ErrorKind.DEADLINE, Failed),
        (ErrorKind.CANCELLED, Failed),
        (ErrorKind.INTERNAL, Failed),
    ],
)
def test_every_kind_of_error_has_its_class(
    service: RunningService, client: Client, kind: ErrorKind, expected: type[Exception]
) -> None:
    error = LlamadError(kind, "SOME_REASON", "message", retry_after_seconds=3.0)
    service.do(lambda: service.service.fail_submit(error))
    with pytest.raises(llamad_client.ClientError) as caught:
        client.generate("p").text()
    assert type(caught.value) is expected
    assert caught.value.reason == "SOME_REASON"
    if kind is not ErrorKind.INTERNAL:
        assert (caught.value.message, caught.value.retry_after_seconds) == ("message", 3.0)


def test_a_service_that_still_loads_says_so() -> None:
    with running_service(loaded=False) as service, Client(service.path) as client:
        service.do(lambda: service.service.state.loading("reading big.gguf"))
        with pytest.raises(StillLoading, match=r"still loading: reading big\.gguf"):
            client.generate("p").text()
        assert client.health() == "NOT_SERVING"
        assert client.status().state == "loading"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_path_that_no_socket_can_have_is_named_with_the_limit(kind: Any) -> None:
    with pytest.raises(ServiceUnreachable, match="path has 108 bytes, at most 107"):
        kind("/" + "s" * 107)


def test_no_socket_and_a_dead_socket_mean_not_running(tmp_path: Path) -> None:
    with (
        Client(tmp_path / "s") as client,
        pytest.raises(NotRunning, match="not running: no socket"),
    ):
        client.status()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with Client(tmp_path / "s") as client, pytest.raises(NotRunning, match="nobody listens"):
        client.generate("p").text()


def test_a_service_that_hangs_up_at_once_has_too_many_connections(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service.server._peer_proxy, "_max_connections", 0)
    with Client(service.path) as client, pytest.raises(ServiceUnreachable) as caught:
        client.status()
    assert caught.value.reason == "TOO_MANY_CONNECTIONS"
    assert str(service.path) in caught.value.message


def test_a_service_that_dies_while_it_is_asked_is_gone(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def die() -> None:
        connection, _ = listener.accept()
        listener.close()
        connection.close()

    with ThreadPoolExecutor(1) as thread:
        dead = thread.submit(die)
        error = diagnose(tmp_path / "s", "the connection broke")
        dead.result()
    assert (type(error), error.reason) == (NotRunning, "NOT_RUNNING")
    assert "nobody listens" in error.message


def test_a_service_that_hangs_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "s"))
        hung.listen()
        error = diagnose(tmp_path / "s", "the handshake timed out")
    assert (type(error), error.reason) == (ServiceUnreachable, "NO_ANSWER")


def test_no_permission_names_the_group_to_join(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, whom no mode keeps out, so the refusal itself is played.
    def refuse(self: object, path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    error = diagnose(service.path, "refused")
    assert type(error) is NoPermission
    assert f"no permission to use {service.path}" in error.message
    assert "usermod -aG" in error.message
    assert "log out and in again" in error.message


def test_advice_about_systemctl_is_for_the_socket_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    monkeypatch.delenv("LLAMAD_SOCKET", raising=False)
    monkeypatch.setattr(address, "DEFAULT_SOCKET", path)
    no_socket = f"llamad is not running: no socket {path}"
    assert diagnose(path, "").message == f"{no_socket} (start it: sudo systemctl start llamad)"
    monkeypatch.setenv("LLAMAD_SOCKET", str(path))
    assert diagnose(path, "").message == f"{no_socket} (from $LLAMAD_SOCKET)"
    assert diagnose(tmp_path / "t", "").message == f"llamad is not running: no socket {tmp_path}/t"


def test_a_service_that_dies_in_the_middle_is_unreachable() -> None:
    with running_service() as service:
        client = Client(service.path)
        entered = service.pause_step(1)
        completion = client.generate("p")
        next(completion)
        assert entered.wait(TIMEOUT_SECONDS)
    with pytest.raises(llamad_client.ClientError):
        completion.text()
    with pytest.raises(NotRunning):
        client.status()
    client.close()


def test_the_socket_comes_from_argument_environment_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLAMAD_SOCKET", "/from/environment")
    assert read_address("/given").sockets == (Path("/given"),)
    assert read_address().sockets == (Path("/from/environment"),)
    monkeypatch.setenv("LLAMAD_SOCKET", "")
    assert read_address().sockets == (Path("/run/llamad/llamad.sock"),)
    assert read_address("relative").sockets[0].is_absolute()


@pytest.mark.parametrize("name", ["with space", "50%20", "ümlaut#?"])
def test_a_socket_path_may_have_any_characters(name: str) -> None:
    with running_service(name=name) as service, Client(service.path) as client:
        assert service.path.name == name
        assert service.path.exists()
        assert client.health() == "SERVING"


def test_the_packages_have_one_version() -> None:
    assert llamad_client.__version__ == llamad.__version__


# ---- asyncio -------------------------------------------------------------------------------------


@asynchronous
async def test_the_async_client_does_the_same() -> None:
    with running_service() as service:
        service.engine.rule = saying("grüß dich")
        async with AsyncClient(service.path) as client:
            completion = client.generate("hi", seed=9)
            assert "".join([piece async for piece in completion]) == "grüß dich"
            assert completion.result is not None
            assert (completion.result.finish_reason, completion.result.seed) == ("stop", 9)
            chat = client.chat([{"role": "user", "content": "u"}])
            events = [event async for event in chat.events()]
            assert isinstance(events[0], Queued)
            assert chat.result is not None
            assert await client.tokenize("ab") == [97, 98]
            assert await client.detokenize([97]) == "a"
            assert (await client.status()).state == "ready"
            assert (await client.version()).api_version == "v1"
            assert len(await client.jobs(include_ended=True)) == 2
            assert [model.name for model in await client.models()] == ["fake"]
            assert await client.health() == "SERVING"


@asynchronous
async def test_async_errors_are_the_same() -> None:
    with running_service() as service:
        async with AsyncClient(service.path) as client:
            with pytest.raises(Refused, match="temperature"):
                await client.generate("p", temperature=-1.0).text()
            with pytest.raises(Refused, match="no job"):
                await client.cancel("j1")
    async with AsyncClient(service.path) as client:
        with pytest.raises(NotRunning):
            await client.health()


@asynchronous
async def test_a_cancelled_async_completion_ends_and_frees_the_job() -> None:
    with running_service() as service:
        entered = service.pause_step(2)
        async with AsyncClient(service.path) as client:
            completion = client.generate("p")
            await anext(completion)
            await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)
            reading = asyncio.create_task(completion.text())
            await asyncio.sleep(0)  # let it begin to read
            completion.cancel()
            assert await reading == ""
            assert completion.result is None
            [job] = await asyncio.to_thread(service.wait_until_idle)
            assert job.state is JobState.CANCELLED


class EarlyCall:
    """A call whose metadata have not come: gRPC does not cancel it with the task that reads."""

    def __init__(self) -> None:
        self.cancelled = False

    async def read(self) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


@asynchronous
async def test_a_cancelled_task_cancels_its_call_however_early() -> None:
    call = EarlyCall()
    task = asyncio.create_task(AsyncCompletion(lambda: call, read_address("/s")).text())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled


@asynchronous
async def test_a_cancelled_task_cancels_its_job() -> None:
    with running_service() as service:
        entered = service.pause_step(1)
        async with AsyncClient(service.path) as client:
            task = asyncio.create_task(client.generate("p").text())
            await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            [job] = await asyncio.to_thread(service.wait_until_idle)
            assert job.state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            [],
            "group llamad (join it: sudo usermod -aG llamad $USER, then log out and in again)",
        ),
        (["root"], "you joined its group llamad after this login: log out and in again"),
    ],
)
def test_who_joined_the_group_in_this_login_hears_to_log_in_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, members: list[str], said: str
) -> None:
    group = SimpleNamespace(gr_name="llamad", gr_gid=54321, gr_mem=members)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: group)
    monkeypatch.setattr(grp, "getgrnam", lambda name: group)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="root"))
    assert said in address._group_hint(tmp_path / "llamad.sock")
