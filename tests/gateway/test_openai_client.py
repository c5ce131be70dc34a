"""The unmodified ``openai`` library against the gateway and a real service with the demo model."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from openai import OpenAI

from clients.daemon_process import Daemon
from gateway.conftest import DEMO_MODEL
from gateway.gateway_process import GatewayProcess
from gateway.libraries import openai_of
from llamad_client import Client
from unit.schedule.fakes import TIMEOUT_SECONDS

MODEL = DEMO_MODEL.stem
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(demo_gateway: GatewayProcess) -> OpenAI:
    return openai_of(demo_gateway)


def test_models_are_listed_and_each_can_be_asked_for(client: OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "llamad"
    with pytest.raises(openai.NotFoundError, match="'nobody' not found"):
        client.models.retrieve("nobody")


def test_a_question_is_answered_as_the_service_answers_it(
    client: OpenAI, demo_service: Daemon
) -> None:
    answer = client.chat.completions.create(
        model="gpt-3.5-turbo", messages=QUESTION, temperature=0, max_tokens=24
    )
    choice = answer.choices[0]
    with Client(demo_service.socket) as direct:
        text = direct.chat(QUESTION, temperature=0, max_tokens=24).text()
    assert choice.message.content == text
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 3 < answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_has_the_text_of_the_whole_answer(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "seed": 7, "max_tokens": 16}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_length_and_stop_end_an_answer(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    text = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = text[5:9]
    stopped = client.chat.completions.create(**asked, stop=["never so", stop])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    short = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_completion_tokens=2, max_tokens=9, temperature=0
    )
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 2


def test_several_answers_of_one_seed_differ_and_come_again(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "n": 3, "seed": 1, "temperature": 1.5}
    texts = [
        [c.message.content for c in client.chat.completions.create(**asked, max_tokens=8).choices]
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_a_bias_bans_a_token(client: OpenAI, demo_service: Daemon) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 1}
    first = client.chat.completions.create(**asked).choices[0].message.content or ""
    with Client(demo_service.socket) as direct:
        (token,) = direct.tokenize(first, add_bos=False)
    other = client.chat.completions.create(**asked, logit_bias={str(token): -100})
    assert other.choices[0].message.content != first


LAMP = {
    "type": "object",
    "properties": {"room": {"enum": ["kitchen", "bath"]}, "on": {"type": "boolean"}},
    "required": ["room", "on"],
    "additionalProperties": False,
}


def test_an_answer_is_what_the_schema_says(client: OpenAI) -> None:
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "lamp", "schema": LAMP, "strict": True},
    }
    hot: Any = {"model": MODEL, "messages": QUESTION, "temperature": 1.5, "seed": 4}
    answer = client.chat.completions.create(**hot, response_format=form)
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) == {"room", "on"}
    assert found["room"] in ("kitchen", "bath")
    assert answer.choices[0].finish_reason == "stop"
    text = client.chat.completions.create(**hot, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert text.choices[0].message.content in ("yes", "no")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content[0].type"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"extra_body": {"grammar": "root ::= nothing"}}, "'nothing' is called"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"contains": {}}},
                }
            },
            "'contains' is not supported",
        ),
        ({"extra_body": {"functions": [{"name": "f"}]}}, "functions"),
    ],
)
def test_a_wrong_or_unsupported_field_is_named(
    client: OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": MODEL, "messages": QUESTION} | fields))
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "invalid_request_error"
    assert named in body["message"]


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(client: OpenAI) -> None:
    long = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(openai.BadRequestError, match=r"\d{4} tokens.*1024") as caught:
        client.chat.completions.create(model=MODEL, messages=long)  # type: ignore[arg-type]
    assert caught.value.code == "context_length_exceeded"
    body = caught.value.body
    assert isinstance(body, dict)
    assert (body["n_prompt_tokens"] >= 2000, body["n_ctx"]) == (True, 1024)


def test_unknown_fields_are_ignored(client: OpenAI) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be short."}, *QUESTION],
        max_tokens=1,
        user="somebody",
        extra_body={"whatever": {"a": 1}, "service_tier": "auto", "tools": [], "top_k": 3},
    )


def test_texts_are_continued_as_the_service_continues_them(
    client: OpenAI, demo_service: Daemon
) -> None:
    prompts = ["The capital of France is", "One, two, three,"]
    answer = client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=6)
    with Client(demo_service.socket) as direct:
        texts = [direct.generate(p, temperature=0, max_tokens=6).text() for p in prompts]
    assert [choice.text for choice in answer.choices] == texts
    assert [choice.index for choice in answer.choices] == [0, 1]
    streamed = ["", ""]
    for chunk in client.completions.create(
        model=MODEL, prompt=prompts, temperature=0, max_tokens=6, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == texts
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_tokens_are_continued_as_their_text_is(client: OpenAI, demo_service: Daemon) -> None:
    text = "The capital of France is"
    with Client(demo_service.socket) as direct:
        tokens = direct.tokenize(text)
    asked: Any = {"model": MODEL, "temperature": 0, "max_tokens": 6}
    expected = client.completions.create(prompt=text, **asked).choices[0].text
    for prompt in (tokens, [tokens, tokens]):
        answer = client.completions.create(prompt=prompt, **asked)
        assert {choice.text for choice in answer.choices} == {expected}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x"] * 9}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [1, 1 << 30]}, "prompt_tokens"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
    ],
)
def test_a_field_of_a_completion_is_named(
    client: OpenAI, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.completions.create(**({"model": MODEL, "prompt": "x"} | fields))


def test_who_leaves_ends_the_job(client: OpenAI, demo_service: Daemon) -> None:
    no_end = {"0": -100, "2": -100}  # the model's two tokens that end an answer
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, max_tokens=900, logit_bias=no_end
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    stream.close()
    with Client(demo_service.socket) as direct:
        end = time.monotonic() + TIMEOUT_SECONDS
        while direct.jobs():
            assert time.monotonic() < end, "the job goes on"
        last = direct.jobs(include_ended=True)[-1]
    assert last.state == "cancelled"
    assert last.completion_tokens < 900


def test_health_is_told_to_everybody(demo_gateway: GatewayProcess) -> None:
    with urllib.request.urlopen(demo_gateway.url + "/health", timeout=TIMEOUT_SECONDS) as answer:
        assert json.load(answer) == {"status": "ok"}


def test_curl_reads_a_stream_line_by_line(demo_gateway: GatewayProcess) -> None:
    body = {"messages": QUESTION, "stream": True, "max_tokens": 4}
    request = urllib.request.Request(
        demo_gateway.url + "/chat/completions", json.dumps(body).encode(), {"Host": "localhost"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = [line for line in answer.read().decode().split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith(("data: {", ":")) for line in lines[:-1])


def test_an_unknown_address_is_no_page(demo_gateway: GatewayProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(demo_gateway.url + "/v1/audio/speech", timeout=TIMEOUT_SECONDS)
    assert caught.value.code == 404
    assert json.load(caught.value)["error"]["type"] == "not_found_error"


def test_it_stops_when_told(demo_service: Daemon, tmp_path: Any) -> None:
    gateway = GatewayProcess(tmp_path, demo_service.socket)
    try:
        assert gateway.stop() == 0
    finally:
        gateway.close()
    assert not [line for line in gateway.lines if "Traceback" in line]
