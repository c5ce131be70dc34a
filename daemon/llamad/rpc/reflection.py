"""Server reflection: what grpcurl and its like ask to learn the interface.

Owns the index of published files. Our own files are published as they are; the standard services,
whose messages lie in a package of our own (see standard/health.proto), under their standard names.
Answers come from descriptors alone: nothing here depends on the state of the service.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
)

from llamad_api.standard import health_pb2, reflection_pb2
from llamad_api.v1 import admin_pb2, generation_pb2, llamad_pb2, status_pb2

SERVICE_NAMES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)

Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse


def published_files() -> list[FileDescriptorProto]:
    """Return the files of every service this server has, under the names clients know."""
    modules = (llamad_pb2, generation_pb2, status_pb2, admin_pb2)
    own = [_copy(module.DESCRIPTOR) for module in modules]
    return [
        *own,
        _renamed(health_pb2.DESCRIPTOR, "grpc.health.v1"),
        _renamed(reflection_pb2.DESCRIPTOR, "grpc.reflection.v1"),
        _renamed(reflection_pb2.DESCRIPTOR, "grpc.reflection.v1alpha"),
    ]


def _copy(file: FileDescriptor) -> FileDescriptorProto:
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    return copy


def _renamed(file: FileDescriptor, package: str) -> FileDescriptorProto:
    """Return a file that imports nothing and nests no types of messages, moved to a package."""
    copy = _copy(file)
    old, new = f".{copy.package}.", f".{package}."
    copy.package = package
    copy.name = f"{package.replace('.', '/')}/{copy.name.rpartition('/')[2]}"
    for service in copy.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    for message in copy.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    return copy


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full name of everything a file defines."""
    for service in file.service:
        name = f"{file.package}.{service.name}"
        yield name
        yield from (f"{name}.{method.name}" for method in service.method)
    for enum in file.enum_type:
        yield from _enum_symbols(file.package, enum)
    for message in file.message_type:
        yield from _message_symbols(file.package, message)


def _message_symbols(scope: str, message: DescriptorProto) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
    for enum in message.enum_type:
        yield from _enum_symbols(name, enum)
    for nested in message.nested_type:
        yield from _message_symbols(name, nested)


def _enum_symbols(scope: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"{scope}.{enum.name}"
    yield from (f"{scope}.{value.name}" for value in enum.value)  # values live beside their enum


class Reflection:
    """The reflection service over a set of files, with those that they import."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """Publish these files."""
        self._files: dict[str, bytes] = {}
        self._imports: dict[str, tuple[str, ...]] = {}
        self._by_symbol: dict[str, str] = {}
        self._messages: set[str] = set()
        self._services: list[str] = []
        for file in files:
            self._files[file.name] = file.SerializeToString(deterministic=True)
            self._imports[file.name] = tuple(file.dependency)
            self._by_symbol.update((symbol, file.name) for symbol in _symbols(file))
            self._messages.update(f"{file.package}.{m.name}" for m in file.message_type)
            self._services += (f"{file.package}.{service.name}" for service in file.service)

    async def info(
        self, requests: AsyncIterator[Request], _context: Any
    ) -> AsyncIterator[Response]:
        """Answer each question of the stream, in order."""
        async for request in requests:
            answer = self.answer(request)
            answer.valid_host = request.host
            answer.original_request.CopyFrom(request)
            yield answer

    def answer(self, request: Request) -> Response:
        """Return the answer to one question, without the fields that repeat the question."""
        match request.WhichOneof("message_request"):
            case "list_services":
                names = [reflection_pb2.ServiceResponse(name=n) for n in sorted(self._services)]
                return Response(
                    list_services_response=reflection_pb2.ListServiceResponse(service=names)
                )
            case "file_by_filename":
                return self._file(request.file_by_filename)
            case "file_containing_symbol":
                return self._file(self._by_symbol.get(request.file_containing_symbol))
            case "all_extension_numbers_of_type" if (
                request.all_extension_numbers_of_type in self._messages
            ):
                return Response(  # proto3 messages have no extensions
                    all_extension_numbers_response=reflection_pb2.ExtensionNumberResponse(
                        base_type_name=request.all_extension_numbers_of_type
                    )
                )
            case None:
                return _error(grpc.StatusCode.INVALID_ARGUMENT, "no question was asked")
            case _:
                return self._file(None)

    def _file(self, name: str | None) -> Response:
        """Return a file and behind it those that it imports, directly or not, each once."""
        if name is None or name not in self._files:
            return _error(grpc.StatusCode.NOT_FOUND, "nothing of that name")
        names = [name]
        for known in names:  # grows meanwhile
            names += (other for other in self._imports[known] if other not in names)
        return Response(
            file_descriptor_response=reflection_pb2.FileDescriptorResponse(
                file_descriptor_proto=[self._files[known] for known in names]
            )
        )

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the service under both of its standard names, for a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self.info,
            request_deserializer=Request.FromString,
            response_serializer=Response.SerializeToString,
        )
        return tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
            for name in SERVICE_NAMES
        )


def _error(code: grpc.StatusCode, message: str) -> Response:
    return Response(
        error_response=reflection_pb2.ErrorResponse(error_code=code.value[0], error_message=message)
    )
