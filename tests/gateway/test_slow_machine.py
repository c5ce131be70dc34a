"""What programs see of a slow machine: signs of life, their place, and when to come back."""

import json
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from gateway.libraries import anthropic_of, openai_of
from llamad.schedule.limits import Limits
from unit.schedule.fakes import TIMEOUT_SECONDS, saying

CONFIG = "[limits]\nping_seconds = 0.1\n"
HELLO: Any = [{"role": "user", "content": "hello"}]
CAPACITY = 3


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """Return a service that answers one at a time and lets three wait."""
    with running_service(limits=Limits(queue_capacity=CAPACITY), n_sequences=1) as running:
        running.engine.rule = saying("An answer.")
        yield running


@pytest.fixture(scope="module")
def gateway(service: RunningService) -> Iterator[GatewayProcess]:
    """Return a gateway before it, which gives a sign of life often."""
    with (
        tempfile.TemporaryDirectory() as name,
        gateway_process(Path(name), service.path, CONFIG) as running,
    ):
        yield running


@contextmanager
def held(service: RunningService) -> Iterator[threading.Event]:
    """Let no step go on until the event is set, at the latest at the end."""
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(TIMEOUT_SECONDS)

    service.engine.before_step = wait
    try:
        yield go_on
    finally:
        go_on.set()
        service.engine.before_step = lambda: None
        service.wait_until_idle()


def stream(gateway: GatewayProcess, path: str, body: dict[str, Any], **headers: str) -> Any:
    """Open a stream and return its answer."""
    data = json.dumps({**body, "stream": True}).encode()
    request = urllib.request.Request(gateway.url + path, data, headers)
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def lines_until(answer: Any, wanted: bytes, count: int) -> list[bytes]:
    """Read lines until so many begin with what is wanted."""
    lines: list[bytes] = []
    while sum(line.startswith(wanted) for line in lines) < count:
        lines.append(answer.readline())
        assert lines[-1], lines
    return lines


@pytest.mark.parametrize(
    ("path", "body", "sign"),
    [
        ("/v1/chat/completions", {"messages": HELLO}, b": ping"),
        ("/v1/completions", {"prompt": "hello"}, b": ping"),
        ("/v1/responses", {"input": "hello"}, b": ping"),
        ("/completion", {"prompt": "hello"}, b": ping"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 20}, b'data: {"type":"ping"}'),
        ("/api/chat", {"model": "fake", "messages": HELLO}, b"{"),
        ("/api/generate", {"model": "fake", "prompt": "hello"}, b"{"),
    ],
)
def test_a_silent_stream_gives_signs_of_life(
    gateway: GatewayProcess,
    service: RunningService,
    path: str,
    body: dict[str, Any],
    sign: bytes,
) -> None:
    with held(service) as go_on, stream(gateway, path, body) as answer:
        lines_until(answer, sign, 3)
        go_on.set()
        assert b'"error":{' not in answer.read()


def test_unmodified_libraries_read_over_the_signs(
    gateway: GatewayProcess, service: RunningService
) -> None:
    chat, message = openai_of(gateway), anthropic_of(gateway)
    lines = ollama.Client(host=gateway.url, timeout=TIMEOUT_SECONDS)
    with held(service) as go_on:
        timer = threading.Timer(0.5, go_on.set)  # some signs come before the text
        timer.start()
        chunks = chat.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "An answer."
        timer.join()
    with held(service) as go_on:
        timer = threading.Timer(0.5, go_on.set)
        timer.start()
        with message.messages.stream(model="m", messages=HELLO, max_tokens=50) as events:
            assert "".join(events.text_stream) == "An answer."
        timer.join()
    with held(service) as go_on:
        timer = threading.Timer(0.5, go_on.set)
        timer.start()
        parts = lines.chat("fake", HELLO, stream=True)
        assert "".join(part.message.content or "" for part in parts) == "An answer."
        timer.join()


def full_queue(gateway: GatewayProcess) -> tuple[Any, list[Any]]:
    """Return the stream of a chat that runs, and those of as many as may wait for it."""
    chat = {"messages": HELLO}
    first = stream(gateway, "/v1/chat/completions", chat)
    lines_until(first, b":", 1)
    return first, [stream(gateway, "/v1/chat/completions", chat) for _ in range(CAPACITY)]


def test_who_waits_hears_the_place_and_a_full_queue_when_to_come_back(
    gateway: GatewayProcess, service: RunningService
) -> None:
    with held(service) as go_on:
        first, waiting = full_queue(gateway)
        for place, answer in enumerate(waiting[1:], 1):  # the first of them is the next
            lines_until(answer, b": queue position %d\n" % place, 1)
        with pytest.raises(openai.RateLimitError, match="queue") as full:
            openai_of(gateway).chat.completions.create(model="m", messages=HELLO)
        assert int(full.value.response.headers["retry-after"]) >= 1
        with pytest.raises(anthropic.RateLimitError, match="queue") as busy:
            anthropic_of(gateway).messages.create(model="m", messages=HELLO, max_tokens=9)
        assert int(busy.value.response.headers["retry-after"]) >= 1
        with pytest.raises(ollama.ResponseError, match="queue") as refused:
            ollama.Client(host=gateway.url).chat("fake", HELLO)
        assert refused.value.status_code == 429
        go_on.set()
        for answer in (first, *waiting):
            assert answer.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": HELLO, "n": CAPACITY + 2}),
        ("/completion", {"prompt": ["hello"] * (CAPACITY + 2)}),
    ],
)
def test_a_stream_of_several_texts_of_which_one_is_refused_does_not_begin(
    gateway: GatewayProcess, service: RunningService, path: str, asked: dict[str, Any]
) -> None:
    with held(service) as go_on:
        first = stream(gateway, "/v1/chat/completions", {"messages": HELLO})
        lines_until(first, b":", 1)
        with pytest.raises(urllib.error.HTTPError) as refused:
            stream(gateway, path, asked)
        assert refused.value.code == 429
        assert int(refused.value.headers["retry-after"]) >= 1
        go_on.set()
        assert first.read().endswith(b"data: [DONE]\n\n")


def test_a_more_urgent_request_goes_before_one_that_waits(
    gateway: GatewayProcess, service: RunningService
) -> None:
    begun: list[int] = []
    plain = service.engine.rule

    def note(history: Any, seed: int, draw: int) -> int:
        begun.extend([seed] if draw == 0 else [])
        return plain(history, seed, draw)

    service.engine.rule = note
    try:
        with held(service) as go_on:
            classes = {1: "normal", 2: "batch", 3: "normal"}
            answers = []
            for seed, name in classes.items():
                asked = {"messages": HELLO, "seed": seed}
                headers = {"Llamad-Priority": name}
                answers.append(stream(gateway, "/v1/chat/completions", asked, **headers))
                lines_until(answers[-1], b":", 1)
            go_on.set()
            for answer in answers:
                assert answer.read().endswith(b"data: [DONE]\n\n")
    finally:
        service.engine.rule = plain
    assert begun == [1, 3, 2]


def test_who_leaves_while_waiting_gives_the_place_back(
    gateway: GatewayProcess, service: RunningService
) -> None:
    with held(service) as go_on:
        first, waiting = full_queue(gateway)
        lines_until(waiting[2], b": queue position 2", 1)
        waiting[0].close()
        new = None
        while new is None:  # the service hears of it in its own time
            try:
                new = stream(gateway, "/v1/chat/completions", {"messages": HELLO})
            except urllib.error.HTTPError as refused:
                assert refused.code == 429  # noqa: PT017 - nothing else is expected
        go_on.set()
        for answer in (first, *waiting[1:], new):
            assert answer.read().endswith(b"data: [DONE]\n\n")


def test_a_long_prompt_is_told_of_as_it_is_read(
    gateway: GatewayProcess, service: RunningService
) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 10}], "return_progress": True}
    with stream(gateway, "/v1/chat/completions", long) as answer:
        chunks = [line for line in answer.read().split(b"\n\n") if line.startswith(b"data: {")]
    told = [json.loads(chunk[6:])["prompt_progress"] for chunk in chunks if b"progress" in chunk]
    assert told
    assert told == sorted(told, key=lambda progress: progress["processed"])
    for progress in told:
        assert progress["processed"] <= progress["total"]
