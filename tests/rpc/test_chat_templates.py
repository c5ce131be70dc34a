"""The templates of model files in a running service: what a hostile or an odd one costs others."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from llamad.config import load_config
from llamad.daemon import Daemon
from llamad_api.v1 import llamad_pb2 as pb
from llamad_api.v1 import llamad_pb2_grpc
from rpc.serving import error_of_call
from tiny_gguf import TinyModelPath, TinySpec
from unit.schedule.fakes import asynchronous

ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    "{{ messages[0].content }}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ messages[0].content }}"
)


@asynccontextmanager
async def served(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[llamad_pb2_grpc.LlamadStub]:
    """Run the service with a model until the block ends."""
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        path = Path(name) / "llamad.sock"
        manager.bind(f"{name}/notify")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{name}/notify")
        config = load_config(None, {"service.socket": str(path), "model.path": str(model)})
        service = Daemon(config, model_required=True, read_again=lambda: config)
        running = asyncio.create_task(service.run())
        try:
            while b"READY=1" not in await asyncio.get_running_loop().sock_recv(manager, 4096):
                pass
            async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
                yield llamad_pb2_grpc.LlamadStub(channel)  # type: ignore[no-untyped-call]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def chat(*messages: tuple[str, str]) -> pb.ChatRequest:
    return pb.ChatRequest(
        messages=[pb.Message(role=role, content=content) for role, content in messages],
        options=pb.Options(max_tokens=1),
    )


@asynchronous
async def test_an_endless_template_fails_its_own_request(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model_path(TinySpec(chat_template=ENDLESS))
    async with served(model, monkeypatch) as stub:
        for _ in range(2):  # the second finds a new process
            call = asyncio.create_task(error_of_call(stub.Chat(chat(("user", "hello")))))
            await stub.GetStatus(pb.GetStatusRequest())
            _, message, metadata = await call
            assert metadata["llamad-reason"] == "CHAT_TEMPLATE_INVALID"
            assert "runs longer than" in message
        raw = pb.GenerateRequest(prompt="hello", options=pb.Options(max_tokens=1))
        events = [event async for event in stub.Generate(raw)]
        assert events[-1].HasField("finished")


@asynchronous
async def test_a_refused_system_message_reaches_the_model(
    tiny_model_path: TinyModelPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model_path(TinySpec(chat_template=NO_SYSTEM))
    async with served(model, monkeypatch) as stub:
        tokens = []
        for messages in ([("user", "be\n\nhi")], [("system", "be"), ("user", "hi")]):
            events = [event async for event in stub.Chat(chat(*messages))]
            tokens.append(events[0].queued.prompt_tokens)
        assert tokens[0] == tokens[1]
