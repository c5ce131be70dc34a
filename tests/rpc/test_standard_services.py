"""Health and reflection as any client of the published protocols sees them, byte by byte."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from llamad_api.standard import health_pb2, reflection_pb2
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "llamad.v1.Admin",
    "llamad.v1.Llamad",
]
REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.mark.parametrize("name", [b"", b"llamad.v1.Llamad", b"grpc.health.v1.Health"])
@asynchronous
async def test_health_follows_the_service_and_has_the_published_encoding(name: bytes) -> None:
    request = bytes([0x0A, len(name)]) + name if name else b""
    async with serving(loaded=False) as service, service.channel() as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(request) == b"\x08\x02"  # NOT_SERVING
        service.load()
        assert await check(request) == b"\x08\x01"  # SERVING


@asynchronous
async def test_health_of_an_unknown_service_is_not_found() -> None:
    async with serving() as service, service.channel() as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        code, _, _ = await error_of_call(check(b"\x0a\x01x"))
    assert code is grpc.StatusCode.NOT_FOUND


@asynchronous
async def test_watch_tells_the_state_now_and_every_change() -> None:
    async with serving(loaded=False) as service, service.channel() as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await call.read() == b"\x08\x02"
        service.load()
        assert await call.read() == b"\x08\x01"
        service.server.health.set_serving(False)
        assert await call.read() == b"\x08\x02"
        call.cancel()


@asynchronous
async def test_watch_of_an_unknown_service_says_so_and_stays_open() -> None:
    async with serving() as service, service.channel() as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a\x01x")
        assert await call.read() == b"\x08\x03"  # SERVICE_UNKNOWN
        assert not call.done()
        call.cancel()


async def ask(service: str, channel: Any, **question: Any) -> Any:
    method = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(host="h", **question)

    [answer] = [answer async for answer in method(requests())]
    assert answer.valid_host == "h"
    return answer


@pytest.mark.parametrize("name", REFLECTION)
@asynchronous
async def test_reflection_lists_the_services(name: str) -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(name, channel, list_services="")
    assert [s.name for s in answer.list_services_response.service] == SERVICES


@pytest.mark.parametrize("symbol", [*SERVICES, "llamad.v1.Options", "llamad.v1.JobState"])
@asynchronous
async def test_reflection_returns_files_that_a_client_can_load_and_use(symbol: str) -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(REFLECTION[1], channel, file_containing_symbol=symbol)
    pool = DescriptorPool()
    files = answer.file_descriptor_response.file_descriptor_proto
    for data in reversed(files):  # a file comes before those that it imports
        pool.AddSerializedFile(data)
    name = FileDescriptorProto.FromString(files[0]).name
    assert pool.FindFileContainingSymbol(symbol).name == name


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("llamad.v1.Llamad.Generate", "llamad"),
        ("llamad.v1.Sampling.top_k", "generation"),
        ("llamad.v1.JOB_STATE_FAILED", "llamad"),
        ("llamad.v1.GetStatusResponse.STATE_READY", "status"),
    ],
)
@asynchronous
async def test_reflection_finds_methods_fields_and_enum_values(symbol: str, name: str) -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(REFLECTION[0], channel, file_containing_symbol=symbol)
    data, *imported = answer.file_descriptor_response.file_descriptor_proto
    file = FileDescriptorProto.FromString(data)
    assert file.name == f"llamad_api/v1/{name}.proto"
    names = [FileDescriptorProto.FromString(other).name for other in imported]
    assert names == list(file.dependency)


@asynchronous
async def test_the_published_health_file_has_the_names_and_numbers_of_the_protocol() -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(REFLECTION[0], channel, file_by_filename="grpc/health/v1/health.proto")
    pool = DescriptorPool()
    pool.AddSerializedFile(answer.file_descriptor_response.file_descriptor_proto[0])
    check = pool.FindMethodByName("grpc.health.v1.Health.Check")
    assert check.input_type.full_name == "grpc.health.v1.HealthCheckRequest"
    status = check.output_type.fields_by_name["status"]
    assert status.enum_type is not None
    assert (status.number, status.enum_type.full_name) == (
        1,
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
    )
    assert status.enum_type.values_by_name["SERVING"].number == 1


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"file_containing_symbol": "no.such.Thing"}, 5),
        ({"file_by_filename": "no/such.proto"}, 5),
        ({"all_extension_numbers_of_type": "no.such.Thing"}, 5),
        ({"file_containing_extension": {"containing_type": "x", "extension_number": 1}}, 5),
        ({}, 3),
    ],
)
@asynchronous
async def test_reflection_answers_a_bad_question_with_an_error_and_goes_on(
    question: dict[str, Any], code: int
) -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(REFLECTION[0], channel, **question)
        assert answer.error_response.error_code == code
        assert await ask(REFLECTION[0], channel, list_services="")


@asynchronous
async def test_a_message_of_ours_has_no_extensions() -> None:
    async with serving() as service, service.channel() as channel:
        answer = await ask(
            REFLECTION[0], channel, all_extension_numbers_of_type="llamad.v1.Options"
        )
    assert list(answer.all_extension_numbers_response.extension_number) == []
    assert answer.all_extension_numbers_response.base_type_name == "llamad.v1.Options"


@asynchronous
async def test_many_watchers_hear_a_change_and_leave_nothing_behind() -> None:
    async with serving(loaded=False) as service, service.channel() as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        calls = [watch(b"") for _ in range(20)]
        await asyncio.gather(*(call.read() for call in calls))
        service.load()
        states = await asyncio.gather(*(call.read() for call in calls))
        assert set(states) == {b"\x08\x01"}
        for call in calls:
            call.cancel()


def test_the_standard_messages_leave_the_published_names_free() -> None:
    for module in (health_pb2, reflection_pb2):
        assert module.DESCRIPTOR.package.startswith("llamad.")
