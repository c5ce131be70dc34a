"""AddPrefix, ListPrefixes and RemovePrefix, and what they refuse."""

import grpc
import pytest

from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous

SYSTEM = "the list of all devices in the house, with their rooms. " * 3


@asynchronous
async def test_a_prefix_is_computed_listed_used_and_removed() -> None:
    async with serving() as service, service.stub() as stub, service.admin() as admin:
        events = [
            event
            async for event in admin.AddPrefix(
                admin_pb2.AddPrefixRequest(name="house", system=SYSTEM)
            )
        ]
        assert events[-1].done.tokens == len("system:" + SYSTEM + "|user:") // 32 * 32
        assert events[-1].done.bytes_on_disk == 0  # no disk here
        messages = [
            pb.Message(role="system", content=SYSTEM),
            pb.Message(role="user", content="which?"),
        ]
        chat = [event async for event in stub.Chat(pb.ChatRequest(messages=messages))]
        assert chat[-1].finished.usage.cached_prompt_tokens == events[-1].done.tokens
        (prefix,) = (await stub.ListPrefixes(pb.ListPrefixesRequest())).prefixes
        assert (prefix.name, prefix.uses, prefix.for_everybody) == ("house", 1, True)
        assert (prefix.in_memory, prefix.bytes_on_disk) == (True, 0)
        assert (prefix.model, prefix.tokens) == (service.bench.model.name, events[-1].done.tokens)
        status = await stub.GetStatus(pb.GetStatusRequest())
        assert status.prefix.hits == 1
        assert status.kv_blocks_cached > 0
        await admin.RemovePrefix(admin_pb2.RemovePrefixRequest(name="house"))
        assert not (await stub.ListPrefixes(pb.ListPrefixesRequest())).prefixes
        code, message, metadata = await error_of_call(
            admin.RemovePrefix(admin_pb2.RemovePrefixRequest(name="house"))
        )
        assert code is grpc.StatusCode.NOT_FOUND
        assert (message, metadata["llamad-reason"]) == ("no prefix 'house'", "PREFIX_NOT_FOUND")


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (admin_pb2.AddPrefixRequest(name="", system=SYSTEM), "INVALID_NAME"),
        (admin_pb2.AddPrefixRequest(name="a/b", system=SYSTEM), "INVALID_NAME"),
        (admin_pb2.AddPrefixRequest(name="n" * 65, system=SYSTEM), "INVALID_NAME"),
        (admin_pb2.AddPrefixRequest(name="house"), "INVALID_SYSTEM"),
        (admin_pb2.AddPrefixRequest(name="house", prompt="short"), "INVALID_PREFIX"),
        (admin_pb2.AddPrefixRequest(name="house", prompt="x" * 5000), "PROMPT_TOO_LONG"),
        (admin_pb2.AddPrefixRequest(name="house", prompt="x" * (1 << 20) + "x"), "INVALID_PROMPT"),
    ],
)
def test_a_prefix_that_cannot_be_kept_is_refused(
    wish: admin_pb2.AddPrefixRequest, reason: str
) -> None:
    @asynchronous
    async def check() -> None:
        async with serving() as service, service.admin() as admin, service.stub() as stub:
            call = admin.AddPrefix(wish)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in call:
                    pass
            assert dict(raised.value.trailing_metadata() or ())["llamad-reason"] == reason
            assert not (await stub.ListPrefixes(pb.ListPrefixesRequest())).prefixes

    check()


@asynchronous
async def test_the_name_of_a_pin_is_checked() -> None:
    async with serving() as service, service.stub() as stub:
        options = pb.Options(pin="no name")
        call = stub.Generate(pb.GenerateRequest(prompt="p", options=options))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in call:
                pass
        assert dict(raised.value.trailing_metadata() or ())["llamad-reason"] == "INVALID_PIN"
