"""A refused call leaves nothing in memory: no reference cycle keeps its prompt's tokens."""

import asyncio
import gc
import weakref

import grpc

from llamad.errors import invalid
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous


class Tokens(list[int]):
    """A list that a weak reference can follow."""


@asynchronous
async def test_what_a_refused_prompt_became_is_freed_without_the_garbage_collector() -> None:
    left: list[weakref.ref[Tokens]] = []

    def refuse(text: str, **options: object) -> list[int]:
        tokens = Tokens()
        left.append(weakref.ref(tokens))
        raise invalid("prompt", "is too long")

    async with serving() as service, service.stub() as stub:
        service.bench.model.tokenizer.encode = refuse  # type: ignore[method-assign, assignment]
        gc.disable()
        try:
            for _ in range(3):
                code, _, _ = await error_of_call(stub.Generate(pb.GenerateRequest(prompt="hi")))
                assert code is grpc.StatusCode.INVALID_ARGUMENT
            while any(tokens() is not None for tokens in left[:2]):  # noqa: ASYNC110 - a task's end
                await asyncio.sleep(0)
        finally:
            gc.enable()
