"""The client library with several services: taken in turn, and left where one cannot answer."""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.running import RunningService, running_service
from llamad_api.v1 import llamad_pb2 as pb
from llamad_client import AsyncClient, Client, NotRunning, Refused, ServiceUnreachable
from llamad_client.address import each_address, read_address
from unit.schedule.fakes import saying

CERTIFICATE = Path(__file__).with_name("localhost.pem")
N_CALLS = 6
MOST_CALLS = 1000

Answer = Callable[[grpc.ServicerContext], Iterator[pb.GenerateResponse]]


class _Generate(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A service that has Generate only; without a health service gRPC takes it for healthy."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, details: Any) -> Any:
        if details.method != "/llamad.v1.Llamad/Generate":
            return None
        return grpc.unary_stream_rpc_method_handler(
            lambda _, context: self._answer(context),
            response_serializer=pb.GenerateResponse.SerializeToString,
        )


@contextmanager
def _generating(
    target: str, answer: Answer, credentials: grpc.ServerCredentials | None = None
) -> Iterator[int]:
    """Serve ``answer``; yield the port."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Generate(answer)])
    if credentials is None:
        port = server.add_insecure_port(target)
    else:
        port = server.add_secure_port(target, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def _answering(text: str) -> Answer:
    def answer(_: grpc.ServicerContext) -> Iterator[pb.GenerateResponse]:
        yield pb.GenerateResponse(queued=pb.Queued())
        yield pb.GenerateResponse(delta=pb.TextDelta(text=text))

    return answer


def _failing(*pieces: pb.GenerateResponse, reached: list[str] | None = None) -> Answer:
    """Fail as a service does whose connection breaks behind these pieces; note it."""

    def answer(context: grpc.ServicerContext) -> Iterator[pb.GenerateResponse]:
        if reached is not None:
            reached.append("broken")
        yield from pieces
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    return answer


@pytest.fixture
def boards() -> Iterator[list[RunningService]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running_service()) for _ in range(2)]


def _paths(boards: list[RunningService]) -> list[str]:
    return [str(board.path) for board in boards]


def test_an_address_is_a_socket_or_several_or_one_name_of_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = (Path("/a"), Path("/b c"))
    assert read_address("unix:/a, /b c").sockets == both
    assert read_address(["/a", Path("/b c")]).sockets == both
    assert read_address("unix:///a").sockets == (Path("/a"),)
    assert read_address("/a,/b c").target == "unix:/a,/b%20c"
    assert read_address(Path("/a")).tries == 1
    monkeypatch.setenv("LLAMAD_SOCKET", "/a,/b c")
    assert read_address().sockets == both
    assert str(read_address()) == "/a,/b c"
    assert read_address("https://pis.local").target == "dns:pis.local:8443"
    assert read_address("https://[::1]:9").target == "dns:[::1]:9"
    assert str(read_address("https://pis.local:9/")) == "https://pis.local:9"
    assert each_address("/a,, unix:/b,/a,https://c") == ["/a", "/b", "https://c:8443"]


@pytest.mark.parametrize(
    "given", ["http://a", "https://", "https://a:x", "https://a/b", "https://a:1,https://b:1"]
)
def test_what_is_no_address_is_refused_with_its_name(given: str) -> None:
    with pytest.raises(ServiceUnreachable) as caught:
        read_address(given)
    assert caught.value.reason == "ADDRESS_INVALID"
    assert given.split(",")[0] in caught.value.message


def test_services_are_taken_in_turn(boards: list[RunningService]) -> None:
    for board in boards:
        board.engine.rule = saying("yes")

    def counts() -> list[int]:
        return [len(board.service.bench.book.list(include_ended=True)) for board in boards]

    with Client(_paths(boards)) as client:
        n_calls = 0
        while min(counts()) == 0 and n_calls < MOST_CALLS:  # the second may connect later
            assert client.generate("hi").text() == "yes"
            n_calls += 1
        assert client.health() == "SERVING"
        assert client.tokenize("hi") == client.tokenize("hi")
    assert sum(counts()) == n_calls
    assert min(counts()) > 0


def test_a_service_that_is_gone_is_left_out() -> None:
    with ExitStack() as stack:
        kept = stack.enter_context(running_service())
        kept.engine.rule = saying("yes")
        with running_service() as gone:
            client = stack.enter_context(Client([gone.path, kept.path]))
            assert client.tokenize("hi")
        assert [client.generate("hi").text() for _ in range(N_CALLS)] == ["yes"] * N_CALLS


def test_what_each_service_has_of_its_own_needs_one_address(boards: list[RunningService]) -> None:
    with Client(_paths(boards)) as client:
        for call in (client.status, client.jobs, client.models, client.metrics, client.prefixes):
            with pytest.raises(Refused) as caught:
                call()
            assert caught.value.reason == "ONE_SERVICE_NEEDED"
            assert str(boards[1].path) in caught.value.message
        with pytest.raises(Refused, match="a job: each service has its own, and 2 are given"):
            client.submit("hi")


def test_a_refusal_names_the_machine(boards: list[RunningService]) -> None:
    with Client(_paths(boards)) as client, pytest.raises(Refused) as caught:
        client.generate("hi", model="nothing").text()
    name = os.uname().nodename
    assert caught.value.message.startswith(f"{name}: ")


def test_the_next_service_answers_what_one_has_not_begun(tmp_path: Path) -> None:
    broken, whole = f"unix:{tmp_path}/broken", f"unix:{tmp_path}/whole"
    queued = pb.GenerateResponse(queued=pb.Queued())
    reached: list[str] = []

    async def ask() -> list[str]:
        reached.clear()
        async with AsyncClient([broken, whole]) as client:
            while set(reached) != {"broken", "whole"}:
                with suppress(ServiceUnreachable):
                    reached.append(await client.generate("hi").text())
            return [await client.generate("hi").text() for _ in range(N_CALLS)]

    with (
        _generating(broken, _failing(queued, reached=reached)),
        _generating(whole, _answering("whole")),
        Client([broken, whole]) as client,
    ):
        # Before both are connected the next one may be the same again.
        while set(reached) != {"broken", "whole"}:
            with suppress(ServiceUnreachable):
                reached.append(client.generate("hi").text())
        assert [client.generate("hi").text() for _ in range(N_CALLS)] == ["whole"] * N_CALLS
        n_broken = reached.count("broken")
        assert asyncio.run(ask()) == ["whole"] * N_CALLS
        assert min(n_broken, reached.count("broken")) > 1


def test_an_answer_that_was_begun_is_an_error_and_not_begun_again(tmp_path: Path) -> None:
    where = [f"unix:{tmp_path}/{name}" for name in "ab"]
    begun = pb.GenerateResponse(delta=pb.TextDelta(text="y"))

    async def ask() -> None:
        async with AsyncClient(where) as client:
            completion = client.generate("hi")
            assert await anext(completion) == "y"
            with pytest.raises(ServiceUnreachable, match="one of 2 services was lost"):
                await completion.text()

    with ExitStack() as stack:
        for target in where:
            stack.enter_context(_generating(target, _failing(begun)))
        client = stack.enter_context(Client(where))
        completion = client.generate("hi")
        assert next(completion) == "y"
        with pytest.raises(ServiceUnreachable, match="one of 2 services was lost") as caught:
            completion.text()
        assert caught.value.reason == "CONNECTION_LOST"
        asyncio.run(ask())


def test_where_none_can_be_reached_each_is_named(tmp_path: Path) -> None:
    with Client(f"{tmp_path}/a,{tmp_path}/b") as client, pytest.raises(NotRunning) as caught:
        client.generate("hi").text()
    assert caught.value.message.startswith("none of 2 services can be reached: ")
    assert f"{tmp_path}/a" in caught.value.message
    assert f"{tmp_path}/b" in caught.value.message


def test_tls_trusts_the_given_ca_and_shows_the_given_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = CERTIFICATE.read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)], pem, require_client_auth=True)
    with _generating("127.0.0.1:0", _answering("yes"), credentials) as port:
        url = f"https://localhost:{port}"
        monkeypatch.setenv("LLAMAD_TLS_CA", str(CERTIFICATE))
        monkeypatch.setenv("LLAMAD_TLS_CERT", str(CERTIFICATE))
        with Client(url) as client:
            assert client.generate("hi").text() == "yes"
        monkeypatch.delenv("LLAMAD_TLS_CERT")
        with Client(url) as client, pytest.raises(ServiceUnreachable, match=url):
            client.generate("hi").text()
    monkeypatch.setenv("LLAMAD_TLS_CA", str(tmp_path / "none.pem"))
    with pytest.raises(ServiceUnreachable, match=r"none\.pem: No such file.*LLAMAD_TLS_CA"):
        Client("https://localhost")
