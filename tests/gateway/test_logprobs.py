"""Probabilities of tokens through every API, by unmodified libraries and a real service."""

import json
import math
import urllib.request
from typing import Any

import ollama
import pytest
from openai import OpenAI

from clients.daemon_process import Daemon
from gateway.gateway_process import GatewayProcess
from gateway.libraries import openai_of
from gateway.test_llama_server import ask
from gateway.test_openai_client import MODEL, QUESTION
from llamad_client import Client, TextDelta, TokenLogprob
from unit.schedule.fakes import TIMEOUT_SECONDS

PROMPT = "Hello 🌍, I am"


@pytest.fixture
def client(demo_gateway: GatewayProcess) -> OpenAI:
    return openai_of(demo_gateway)


def told(service: Daemon, **options: Any) -> list[TokenLogprob]:
    """Return what the service itself tells of an answer to PROMPT."""
    with Client(service.socket) as direct:
        events = [*direct.generate(PROMPT, parse_special=True, **options).events()]
    return [e.logprob for e in events if isinstance(e, TextDelta) and e.logprob is not None]


def test_a_chat_tells_of_every_token_whole_and_in_a_stream(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "seed": 7, "max_tokens": 40}
    asked |= {"logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert b"".join(bytes(one.bytes or ()) for one in content).decode() == choice.message.content
    assert all(len(one.top_logprobs) == 3 for one in content)
    assert all(one.logprob <= one.top_logprobs[0].logprob <= 0 for one in content)
    streamed: list[Any] = []
    for chunk in client.chat.completions.create(stream=True, **asked):
        for part in chunk.choices:
            streamed += (part.logprobs and part.logprobs.content) or []
    assert streamed == content
    plain = client.chat.completions.create(**(asked | {"top_logprobs": None})).choices[0]
    assert plain.logprobs is not None
    assert [one.top_logprobs for one in plain.logprobs.content or []] == [[]] * len(content)


def test_a_response_tells_of_every_token_whole_and_in_a_stream(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": QUESTION, "max_output_tokens": 40, "temperature": 0}
    told = client.responses.create(top_logprobs=3, **asked)
    part: Any = told.output[0].content[0]
    assert b"".join(bytes(one.bytes) for one in part.logprobs).decode() == part.text
    assert all(len(one.top_logprobs) == 3 for one in part.logprobs)
    assert told.top_logprobs == 3
    streamed: list[Any] = []
    events: list[Any] = list(client.responses.create(top_logprobs=3, stream=True, **asked))
    for event in events:
        if event.type == "response.output_text.delta":
            streamed += event.to_dict()["logprobs"]
    assert streamed == [one.to_dict() for one in part.logprobs]
    assert events[-1].response.output[0].content[0].logprobs == part.logprobs
    included: Any = client.responses.create(include=["message.output_text.logprobs"], **asked)
    assert [one.logprob for one in included.output[0].content[0].logprobs] == [
        one.logprob for one in part.logprobs
    ]
    plain: Any = client.responses.create(**asked)
    assert plain.output[0].content[0].logprobs == []


def test_a_stop_string_s_tokens_are_left_out(client: OpenAI, demo_service: Daemon) -> None:
    text = "".join(
        p.piece.decode() for p in told(demo_service, max_tokens=8, temperature=0, logprobs=0)
    )
    asked: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    answer = client.completions.create(stop=[text[6:12]], logprobs=0, **asked).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.logprobs is not None
    joined = "".join(answer.logprobs.tokens or [])
    assert joined.startswith(answer.text)
    assert len(joined) < len(text)


def test_a_completion_has_lists(client: OpenAI, demo_service: Daemon) -> None:
    asked: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    expected = told(demo_service, max_tokens=8, temperature=0, logprobs=2)
    answer = client.completions.create(logprobs=2, **asked).choices[0]
    lists = answer.logprobs
    assert lists is not None
    assert lists.token_logprobs == [one.logprob for one in expected]
    assert [*map(len, lists.top_logprobs or [])] == [2] * 8  # the drawn one is the likeliest
    assert lists.tokens == [one.piece.decode() for one in expected]
    for offset, token in zip(lists.text_offset or [], lists.tokens or [], strict=True):
        assert answer.text[offset:].startswith(token)
    offsets: list[int] = []
    for chunk in client.completions.create(logprobs=2, stream=True, **asked):
        for choice in chunk.choices:
            offsets += choice.logprobs.text_offset or [] if choice.logprobs else []
    assert offsets == lists.text_offset
    assert client.completions.create(**asked).choices[0].logprobs is None


def test_half_a_character_has_its_bytes(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": "x", "temperature": 0, "logprobs": 1}
    form = {"grammar": 'root ::= "🦙é" "🦙"'}
    choice = client.completions.create(extra_body=form, **asked).choices[0]
    assert choice.text == "🦙é🦙"
    assert choice.logprobs is not None
    assert "\\xf0" in (choice.logprobs.tokens or [""])[0]
    chat = client.chat.completions.create(
        model=MODEL, messages=QUESTION, logprobs=True, extra_body=form
    )
    logprobs = chat.choices[0].logprobs
    assert logprobs is not None
    raw = b"".join(bytes(one.bytes or ()) for one in logprobs.content or [])
    assert raw.decode() == "🦙é🦙"


def test_a_score_has_the_bits_of_the_answer(demo_service: Daemon) -> None:
    expected = told(demo_service, max_tokens=40, temperature=1.2, seed=3, logprobs=2)
    with Client(demo_service.socket) as direct:
        tokens = [one.token for one in expected]
        (score,) = direct.score(PROMPT, [tokens], parse_special=True, likeliest=2)
    assert score.tokens == expected
    assert score.logprob == math.fsum(one.logprob for one in expected)


@pytest.mark.parametrize("as_tokens", [False, True])
def test_an_echo_scores_the_prompt_as_programs_that_measure_want_it(
    client: OpenAI, demo_service: Daemon, as_tokens: bool
) -> None:
    with Client(demo_service.socket) as direct:
        tokens = direct.tokenize(PROMPT)
        (score,) = direct.score(tokens[:1], [tokens[1:]])
    asked: Any = {"model": MODEL, "prompt": tokens if as_tokens else PROMPT, "echo": True}
    asked |= {"logprobs": 1, "temperature": 0}
    expected = [None, *(one.logprob for one in score.tokens)]
    for max_tokens in (0, 1):
        answer = client.completions.create(max_tokens=max_tokens, **asked)
        choice = answer.choices[0]
        lists = choice.logprobs
        assert lists is not None
        assert choice.text.startswith(PROMPT)
        assert (choice.text == PROMPT) is (max_tokens == 0)
        token_logprobs: Any = lists.token_logprobs
        assert token_logprobs[: len(tokens)] == expected
        assert len(token_logprobs) == len(tokens) + max_tokens
        assert (lists.top_logprobs or [])[0] is None
        assert answer.usage is not None
        assert answer.usage.completion_tokens == max_tokens
    texts = ""
    for chunk in client.completions.create(max_tokens=2, stream=True, **asked):
        texts += "".join(one.text for one in chunk.choices)
    assert texts.startswith(PROMPT)
    assert len(texts) > len(PROMPT)
    plain = client.completions.create(**(asked | {"logprobs": None}), max_tokens=1, n=2)
    assert all(one.text.startswith(PROMPT) and one.logprobs is None for one in plain.choices)


def test_llama_server_s_form(demo_gateway: GatewayProcess, demo_service: Daemon) -> None:
    body = {"prompt": PROMPT, "n_predict": 6, "temperature": 0, "n_probs": 3}
    whole = ask(demo_gateway, "/completion", body)["completion_probabilities"]
    expected = told(demo_service, max_tokens=6, temperature=0, logprobs=3)
    assert [(one["id"], one["logprob"]) for one in whole] == [
        (e.token, e.logprob) for e in expected
    ]
    assert [one["id"] for one in whole[0]["top_logprobs"]] == [
        e.token for e in expected[0].likeliest
    ]
    plain = {"prompt": PROMPT, "n_predict": 6, "temperature": 0, "return_tokens": True}
    answer = ask(demo_gateway, "/completion", plain)
    assert answer["tokens"] == [one["id"] for one in whole]
    assert "completion_probabilities" not in answer
    request = urllib.request.Request(
        demo_gateway.url + "/completion", json.dumps({**body, "stream": True}).encode()
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        chunks = [
            json.loads(part[6:]) for part in answer.read().split(b"\n\n") if part[:5] == b"data:"
        ]
    assert [one for chunk in chunks for one in chunk.get("completion_probabilities", [])] == whole


def test_ollama_s_form(demo_gateway: GatewayProcess) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    answer = ollama.Client(demo_gateway.url).chat(**asked, options={"seed": 3, "num_predict": 12})
    assert answer.logprobs is not None
    assert "".join(one.token for one in answer.logprobs) == answer.message.content
    assert all(math.exp(one.logprob) <= 1 for one in answer.logprobs)
    assert all(len(one.top_logprobs or []) == 2 for one in answer.logprobs)
