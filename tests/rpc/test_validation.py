"""Every field of a request outside its range: INVALID_ARGUMENT that names it, before any work."""

import math
from typing import Any

import grpc
import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.request import AdapterChoice, ContextFull, Priority
from llamad.rpc import from_proto as convert
from llamad.sampling.parameters import Sampling
from llamad.sampling.response_format import FormatKind, ResponseFormat
from llamad_api.v1 import llamad_pb2 as pb
from rpc.serving import error_of_call, serving
from unit.schedule.fakes import asynchronous

RULES = convert.Rules()


def generate(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**{"prompt": "p", **fields})


def sampling(**fields: Any) -> pb.GenerateRequest:
    return generate(options=pb.Options(sampling=pb.Sampling(**fields)))


def options(**fields: Any) -> pb.GenerateRequest:
    return generate(options=pb.Options(**fields))


NAN, INF = math.nan, math.inf
BAD_SAMPLING = [
    *[("temperature", value) for value in (-0.1, NAN, INF, -INF)],
    *[("top_k", value) for value in (-1, -(2**31))],
    *[("top_p", value) for value in (0, -0.5, 1.5, NAN, INF)],
    *[("min_p", value) for value in (-0.1, 1, 2, NAN)],
    *[("typical_p", value) for value in (0, 1.1, NAN)],
    *[("repeat_penalty", value) for value in (0, -1, NAN, INF)],
    *[("repeat_last_n", value) for value in (-2, -(2**31))],
    *[("presence_penalty", value) for value in (-2.5, 2.5, NAN)],
    *[("frequency_penalty", value) for value in (-2.5, 2.5, -INF)],
    *[("logit_bias", {5: value}) for value in (101, -101, NAN, INF)],
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", dict.fromkeys(range(1025), 1.0)),
    *[("mirostat", value) for value in (-1, 3)],
    *[("dry_base", value) for value in (0.5, NAN)],
    *[("dry_allowed_length", value) for value in (0, -1)],
    *[("xtc_threshold", value) for value in (0, 1.5)],
    *[("dry_sequence_breakers", value) for value in (["a"] * 17, ["a" * 257], ["", "a"])],
    *[("samplers", value) for value in (["top_k", "top_k"], ["TOP_K"], ["x" * 1000], [""])],
]
GOOD_SAMPLING = [
    ("temperature", 0),
    ("temperature", 50),
    ("top_k", 0),
    ("top_k", 2**31 - 1),
    ("top_p", 1),
    ("min_p", 0),
    ("typical_p", 1),
    ("repeat_penalty", 0.5),
    ("repeat_last_n", -1),
    ("repeat_last_n", 0),
    ("presence_penalty", -2),
    ("frequency_penalty", 2),
    ("mirostat", 2),
    ("dry_sequence_breakers", ("",)),
    ("dry_sequence_breakers", ("\n", "ab")),
    ("samplers", ("temperature", "top_k", "penalties")),
]
BAD_OPTIONS = [
    ("max_tokens", 0),
    ("logprobs", 21),
    ("n", 0),
    ("n", 9),
    ("stop", [""]),
    ("stop", ["x" * 257]),
    ("stop", ["ü" * 129]),
    ("stop", ["x"] * 17),
    ("stop", ["x"] * 10_000),
    ("priority", 17),
    ("deadline_seconds", 0),
    ("deadline_seconds", -1),
    ("deadline_seconds", NAN),
    ("deadline_seconds", INF),
    ("time_to_live_seconds", 0),
    ("time_to_live_seconds", NAN),
    ("time_to_live_seconds", INF),
    ("on_behalf_of", "a" * 65),
    ("on_behalf_of", "anna b"),
    ("on_behalf_of", "a\n"),
    ("model", "m" * 257),
]


def refused(request: pb.GenerateRequest) -> LlamadError:
    with pytest.raises(LlamadError) as caught:
        convert.generation_request(request, RULES, "r")
    assert caught.value.kind is ErrorKind.INVALID
    return caught.value


@pytest.mark.parametrize(("field", "value"), BAD_SAMPLING)
def test_a_sampling_field_outside_its_range_is_named(field: str, value: Any) -> None:
    error = refused(sampling(**{field: value}))
    assert error.reason == f"INVALID_{field.upper()}"
    assert error.message.startswith(f"{field}: ")


@pytest.mark.parametrize(("field", "value"), GOOD_SAMPLING)
def test_a_sampling_field_at_the_end_of_its_range_is_taken(field: str, value: Any) -> None:
    request = convert.generation_request(sampling(**{field: value}), RULES, "r")
    assert getattr(request.sampling, field) == value


@pytest.mark.parametrize(("field", "value"), BAD_OPTIONS)
def test_an_option_outside_its_range_is_named(field: str, value: Any) -> None:
    error = refused(options(**{field: value}))
    assert error.reason == f"INVALID_{field.upper()}"
    assert error.message.startswith(f"{field}: ")


def test_an_absent_field_takes_the_configured_default_and_zero_does_not() -> None:
    rules = convert.Rules(sampling=Sampling(temperature=0.5, top_k=7))
    absent = convert.generation_request(generate(), rules, "r").sampling
    assert (absent.temperature, absent.top_k, absent.seed) == (0.5, 7, None)
    assert convert.generation_request(generate(), rules, "r").speculation is None
    zero = convert.generation_request(sampling(temperature=0, top_k=0, seed=0), rules, "r").sampling
    assert (zero.temperature, zero.top_k, zero.seed) == (0, 0, 0)


def test_every_field_arrives() -> None:
    message = pb.GenerateRequest(
        prompt="p",
        parse_special=True,
        options=pb.Options(
            model="m",
            max_tokens=9,
            stop=["a", "b"],
            priority=pb.PRIORITY_BATCH,
            deadline_seconds=2.5,
            time_to_live_seconds=1.5,
            on_behalf_of="anna@house.example",
            speculation=False,
            sampling=pb.Sampling(seed=2**64 - 1, logit_bias={3: -100}),
        ),
    )
    message.options.response_format.json_schema = "{}"
    message.options.response_format.closed_objects = True
    request = convert.generation_request(message, RULES, "r")
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, "{}", closed_objects=True)
    assert request.response_format == wanted
    assert (request.prompt, request.parse_special, request.model) == ("p", True, "m")
    assert (request.max_tokens, request.stop) == (9, ("a", "b"))
    assert (request.priority, request.deadline_seconds) == (Priority.BATCH, 2.5)
    assert (request.time_to_live_seconds, request.owner) == (1.5, "anna@house.example")
    assert request.speculation is False
    assert (request.sampling.seed, dict(request.sampling.logit_bias)) == (2**64 - 1, {3: -100.0})
    assert request.request_id == "r"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({}, "INVALID_RESPONSE_FORMAT"),
        ({"closed_objects": True}, "INVALID_RESPONSE_FORMAT"),
        (
            {"grammar": "root ::= []", "closed_objects": True},
            "INVALID_RESPONSE_FORMAT_CLOSED_OBJECTS",
        ),
    ],
)
def test_a_format_that_says_nothing_or_two_things_is_refused(
    wanted: dict[str, Any], reason: str
) -> None:
    message = pb.ResponseFormat(**wanted)
    assert refused(options(response_format=message)).reason == reason


def test_prompt_tokens_are_instead_of_a_prompt() -> None:
    request = convert.generation_request(pb.GenerateRequest(prompt_tokens=[5, 0]), RULES, "r")
    assert (request.prompt, request.tokens) == (None, (5, 0))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.GenerateRequest(prompt_tokens=[1], prompt="p"), "INVALID_PROMPT_TOKENS"),
        (pb.GenerateRequest(prompt_tokens=[1] * (2**20 + 1)), "INVALID_PROMPT_TOKENS"),
        (pb.GenerateRequest(prompt_tokens=[1], parse_special=True), "INVALID_PARSE_SPECIAL"),
    ],
)
def test_bad_prompt_tokens_are_refused(message: pb.GenerateRequest, reason: str) -> None:
    assert refused(message).reason == reason


@pytest.mark.parametrize("prompt", ["", "x" * (2**20 + 1), "ü" * (2**19 + 1)])
def test_an_empty_or_huge_prompt_is_refused(prompt: str) -> None:
    assert refused(generate(prompt=prompt)).reason == "INVALID_PROMPT"


def test_the_configured_prompt_limit_holds_for_messages_together() -> None:
    rules = convert.Rules(max_prompt_bytes=10)
    with pytest.raises(LlamadError, match="prompt: has 11 bytes, at most 10"):
        convert.generation_request(generate(prompt="x" * 11), rules, "r")
    messages = [pb.Message(role="user", content="x" * 6)] * 2
    with pytest.raises(LlamadError, match=r"messages\.content: has 12 bytes in all, at most 10"):
        convert.chat_request(pb.ChatRequest(messages=messages), rules, "r")


def test_nul_bytes_in_a_prompt_are_text() -> None:
    assert convert.generation_request(generate(prompt="a\0b"), RULES, "r").prompt == "a\0b"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "INVALID_MESSAGES"),
        ([pb.Message(role="user", content="x")] * 1025, "INVALID_MESSAGES"),
        ([pb.Message(role="wizard", content="x")], "INVALID_MESSAGES_ROLE"),
        ([pb.Message(content="x")], "INVALID_MESSAGES_ROLE"),
        ([pb.Message(role="x" * 10_000, content="x")], "INVALID_MESSAGES_ROLE"),
        ([pb.Message(role="user", content="x" * (2**20 + 1))], "INVALID_MESSAGES_CONTENT"),
    ],
)
def test_a_bad_conversation_is_refused(messages: list[pb.Message], reason: str) -> None:
    with pytest.raises(LlamadError) as caught:
        convert.chat_request(pb.ChatRequest(messages=messages), RULES, "r")
    assert caught.value.reason == reason
    assert len(caught.value.message) < 200


@asynchronous
async def test_a_refused_request_never_becomes_a_job() -> None:
    async with serving() as service, service.stub() as stub:
        code, message, metadata = await error_of_call(stub.Generate(sampling(temperature=-1)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == "temperature: is -1, must be in [0, 100]"
        assert metadata["llamad-reason"] == "INVALID_TEMPERATURE"
        assert service.bench.book.list(include_ended=True) == []


@asynchronous
async def test_a_4_megabyte_prompt_is_refused_by_its_size_and_a_10_megabyte_one_unread() -> None:
    async with serving() as service, service.stub() as stub:
        request = pb.GenerateRequest(prompt="x" * 4_000_000)
        code, message, _ = await error_of_call(stub.Generate(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == "prompt: has 4000000 bytes, at most 1048576"
        request = pb.GenerateRequest(prompt="x" * 10_000_000)
        code, message, _ = await error_of_call(stub.Generate(request))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in message


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x02\xff\xfe",  # a prompt that is no UTF-8
        b"\x0a\x03\xed\xa0\x80",  # a lone surrogate
        b"\x0a\x7f",  # truncated
        b"\xff" * 20,
    ],
)
@asynchronous
async def test_bytes_that_are_no_message_are_an_invalid_request(data: bytes) -> None:
    async with serving() as service, service.channel() as channel:
        code, _, metadata = await error_of_call(
            channel.unary_stream("/llamad.v1.Llamad/Generate")(data)
        )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert metadata["llamad-reason"] == "INVALID_REQUEST"


@pytest.mark.parametrize("tokens", [[256], [-1], [1, 2, 2**31 - 1]])
@asynchronous
async def test_a_token_outside_the_vocabulary_is_refused(tokens: list[int]) -> None:
    async with serving() as service, service.stub() as stub:
        code, message, _ = await error_of_call(stub.Detokenize(pb.DetokenizeRequest(tokens=tokens)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "must be 0 to 255" in message


@pytest.mark.parametrize("method", ["GetJob", "CancelJob", "WatchJob"])
@asynchronous
async def test_a_job_id_that_is_missing_unknown_or_huge_is_refused(method: str) -> None:
    request = getattr(pb, f"{method}Request")
    async with serving() as service, service.stub() as stub:
        for job_id, reason in (
            ("", "INVALID_ID"),
            ("j" * 300, "INVALID_ID"),
            ("j1", "JOB_NOT_FOUND"),
        ):
            _, _, metadata = await error_of_call(getattr(stub, method)(request(id=job_id)))
            assert metadata["llamad-reason"] == reason


def chat(**fields: Any) -> pb.ChatRequest:
    return pb.ChatRequest(messages=[pb.Message(role="user", content="u")], **fields)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"enable_thinking": "yes"}, "enable_thinking is no JSON"),
        ({"x": ""}, "x is no JSON"),
        ({"x": "NaN"}, "NaN is no number of JSON"),
        ({"x": "1" * 5000}, "x is no JSON"),
        ({"x": "[" * 33 + "]" * 33}, "x is nested deeper than 32"),
        ({"x": "[" * 8000}, "x is no JSON"),
        ({"x": '"' + "a" * (16 << 10) + '"'}, "at most 16384"),
        ({f"x{i}": "1" for i in range(33)}, "there are 33, at most 32"),
        ({"messages": "[]"}, "messages is set by the service"),
        ({"tools": "[]"}, "tools is set by the service"),
        ({"1x": "1"}, "is no name"),
        ({"": "1"}, "is no name"),
        ({"x" * 65: "1"}, "is no name"),
        ({"grün": "1"}, "is no name"),
    ],
)
def test_template_arguments_that_are_refused(arguments: dict[str, str], says: str) -> None:
    message = chat(options=pb.Options(template_arguments=arguments))
    with pytest.raises(LlamadError, match=r"^template_arguments: ") as error:
        convert.chat_request(message, RULES, "r")
    assert says in error.value.message
    assert error.value.reason == "INVALID_TEMPLATE_ARGUMENTS"


def test_template_arguments_go_over_those_of_the_configuration() -> None:
    rules = convert.Rules(template_arguments={"a": 1, "b": 2})
    message = chat(options=pb.Options(template_arguments={"b": "[true, null]", "c": '"x"'}))
    arguments = convert.chat_request(message, rules, "r").template_arguments
    assert arguments == {"a": 1, "b": [True, None], "c": "x"}


def test_a_prompt_takes_no_template_arguments() -> None:
    error = refused(generate(options=pb.Options(template_arguments={"a": "1"})))
    assert error.message.startswith("template_arguments: ")


@pytest.mark.parametrize(
    ("asked", "configured", "expected"),
    [
        (pb.CONTEXT_FULL_UNSPECIFIED, ContextFull.REFUSE, ContextFull.REFUSE),
        (pb.CONTEXT_FULL_DROP_OLDEST, ContextFull.REFUSE, ContextFull.DROP_OLDEST),
        (pb.CONTEXT_FULL_REFUSE, ContextFull.DROP_OLDEST, ContextFull.REFUSE),
    ],
)
def test_a_request_says_what_becomes_of_a_long_chat(
    asked: Any, configured: ContextFull, expected: ContextFull
) -> None:
    rules = convert.Rules(context_full=configured)
    assert convert.chat_request(chat(context_full=asked), rules, "r").context_full is expected


def test_an_unknown_context_full_is_refused() -> None:
    message = pb.ChatRequest.FromString(chat().SerializeToString() + b"\x18\x09")
    with pytest.raises(LlamadError, match=r"^context_full: "):
        convert.chat_request(message, RULES, "r")


def test_the_configured_system_message_goes_in_front_of_a_chat_without_one() -> None:
    rules = convert.Rules(system="Be brief")
    roles = [m.role for m in convert.chat_request(chat(), rules, "r").messages]
    own = pb.ChatRequest(messages=[pb.Message(role="system"), pb.Message(role="user")])
    texts = [m.content for m in convert.chat_request(own, rules, "r").messages]
    assert (roles, texts) == (["system", "user"], ["", ""])


@pytest.mark.parametrize(
    ("options", "configured", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"sampling": pb.Sampling(seed=1)}, True, True),
        ({"sampling": pb.Sampling(temperature=0)}, True, False),
        ({"sampling": pb.Sampling(logit_bias={1: 1})}, True, False),
        ({"sampling": pb.Sampling(temperature=0), "loop_guard": True}, False, True),
        ({"loop_guard": False}, True, False),
    ],
)
def test_the_loop_guard_is_off_for_a_request_with_its_own_sampling(
    options: dict[str, Any], configured: bool, expected: bool
) -> None:
    rules = convert.Rules(loop_guard=configured)
    request = convert.generation_request(generate(options=pb.Options(**options)), rules, "r")
    assert request.loop_guard is expected


def test_an_adapter_is_named_with_a_scale_in_its_range() -> None:
    plain = accepted_adapter(name="a")
    assert plain is not None
    assert (plain.name, plain.scale, plain.digest) == ("a", 1.0, "")
    weak = accepted_adapter(name="a", scale=-0.5)
    assert weak is not None
    assert weak.scale == -0.5
    assert convert.generation_request(options(), RULES, "").adapter is None
    for adapter, field in (
        ({"name": ""}, "adapter.name"),
        ({"name": "x" * 257}, "adapter.name"),
        ({"name": "a", "scale": 1000.5}, "adapter.scale"),
        ({"name": "a", "scale": float("nan")}, "adapter.scale"),
    ):
        assert refused(options(adapter=adapter)).message.startswith(f"{field}: ")
    assert refused(options(adapter={"name": "a"}, pin="p")).message.startswith("pin: ")


def accepted_adapter(**fields: Any) -> AdapterChoice | None:
    return convert.generation_request(options(adapter=fields), RULES, "").adapter
