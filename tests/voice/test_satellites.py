"""The client of the package ``wyoming`` is answered: transcripts, conversations, the end."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from unit.schedule.fakes import TIMEOUT_SECONDS, saying
from voice.conftest import CONFIG, PROGRAM
from voice.satellite import answer_to, heard, said_once, satellite, say


def test_a_program_learns_what_there_is(gateway: GatewayProcess) -> None:
    async def describe() -> Info:
        async with satellite(gateway) as client:
            [event] = await answer_to(client, Describe().event())
            return Info.from_event(event)

    [program] = asyncio.run(describe()).handle
    assert program.installed
    assert program.supports_handled_streaming
    assert not program.supports_home_control
    [model] = program.models
    assert (model.name, model.installed, model.languages) == ("fake", True, [])


def test_a_transcript_is_answered_while_the_text_is_drawn(gateway: GatewayProcess) -> None:
    events = said_once(gateway, "What time is it?")
    assert heard(events) == "It is noon."
    assert len(events) > 4  # more than one piece


def test_a_ping_is_answered(gateway: GatewayProcess) -> None:
    async def ping() -> list[Event]:
        async with satellite(gateway) as client:
            return await answer_to(client, Ping("there?").event())

    [event] = asyncio.run(ping())
    assert (event.type, event.data["text"]) == ("pong", "there?")


@pytest.fixture
def prompts(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every prompt is added that is read to its end."""
    read: list[str] = []
    answer = saying("It is noon.")

    def rule(history: tuple[int, ...], seed: int, draw: int) -> int:
        if draw == 0:
            read.append(bytes(token for token in history if token < 256).decode())
        return answer(history, seed, draw)

    monkeypatch.setattr(service.engine, "rule", rule)
    return read


def test_a_connection_is_a_conversation(gateway: GatewayProcess, prompts: list[str]) -> None:
    async def talk() -> None:
        async with satellite(gateway) as client:
            for text in ("one", "two", "three", "four"):
                assert heard(await say(client, text)) == "It is noon."

    asyncio.run(talk())
    said_once(gateway, "five")
    assert [word in prompts[1] for word in ("Be short.", "one", "noon", "two")] == [True] * 4
    assert [word in prompts[3] for word in ("one", "two", "three", "four")] == [False, *[True] * 3]
    assert "four" not in prompts[4]


def test_a_named_conversation_goes_on_on_another_connection(
    gateway: GatewayProcess, prompts: list[str]
) -> None:
    first = said_once(gateway, "my name is Ada", "c1")
    said_once(gateway, "what is it?", "c1")
    said_once(gateway, "what is it?", "c2")
    assert first[-2].data["context"] == {"conversation_id": "c1"}
    assert ["Ada" in prompt for prompt in prompts] == [True, True, False]


def test_a_conversation_goes_on_by_the_name_that_the_answer_gave(
    gateway: GatewayProcess, prompts: list[str]
) -> None:
    name = said_once(gateway, "my name is Ada")[-2].data["context"]["conversation_id"]
    said_once(gateway, "what is it?", name)
    assert len(name) == 32


def test_two_transcripts_at_once_are_answered_in_their_order(
    gateway: GatewayProcess, prompts: list[str]
) -> None:
    async def hurry() -> list[Event]:
        async with satellite(gateway) as client:
            for text in ("one", "two"):
                await client.write_event(Event("transcript", {"text": text}))
            events: list[Event] = []
            while [event.type for event in events].count("handled-stop") < 2:
                events.append(await client.read_event())
            return events

    events = asyncio.run(hurry())
    middle = [event.type for event in events].index("handled-stop") + 1
    assert heard(events[:middle]) == heard(events[middle:]) == "It is noon."
    assert ["two" in prompt for prompt in prompts] == [False, True]


def test_what_is_not_for_it_is_left_out(gateway: GatewayProcess) -> None:
    async def talk() -> list[Event]:
        async with satellite(gateway) as client:
            sound = {"rate": 16000, "width": 2, "channels": 1}
            await client.write_event(Event("audio-chunk", sound, bytes(100_000)))
            await client.write_event(Event("select-program", {"name": "llamad"}))
            return await say(client, "hello")

    assert heard(asyncio.run(talk())) == "It is noon."


def test_silence_is_not_handled(gateway: GatewayProcess, prompts: list[str]) -> None:
    [event] = said_once(gateway, "  ")
    assert (event.type, event.data["text"]) == ("not-handled", "There was nothing to answer.")
    assert prompts == []


def jobs_of(service: RunningService) -> list[Any]:
    return service.wait_until_idle()


def test_a_job_is_interactive_and_ends_when_the_satellite_leaves(tmp_path: Path) -> None:
    with running_service() as service:
        service.engine.rule = saying("It is noon. " * 20)
        entered = service.pause_step(5)

        async def leave() -> None:
            async with satellite(gateway) as client:
                await client.write_event(Event("transcript", {"text": "hello"}))
                assert (await client.read_event()).type == "handled-start"
                await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)

        with gateway_process(tmp_path, service.path, CONFIG, PROGRAM) as gateway:
            asyncio.run(leave())
            [job] = jobs_of(service)
    assert job.state.name == "CANCELLED"
    assert job.priority.name == "INTERACTIVE"


def test_a_service_that_is_not_there_is_told_and_found_when_it_comes(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with gateway_process(tmp_path, socket, CONFIG, PROGRAM) as gateway:
        [event] = said_once(gateway, "hello")
        assert (event.type, event.data["text"]) == (
            "not-handled",
            "The language model is not running.",
        )
        with running_service() as service:
            service.engine.rule = saying("It is noon.")
            socket.symlink_to(service.path)
            while (events := said_once(gateway, "hello"))[-1].type == "not-handled":
                pass
            assert heard(events) == "It is noon."


def test_a_stop_lets_an_answer_end(tmp_path: Path) -> None:
    with running_service() as service:
        service.engine.rule = saying("It is noon.")
        go_on, entered = threading.Event(), threading.Event()

        def pause() -> None:
            entered.set()
            assert go_on.wait(TIMEOUT_SECONDS)

        service.engine.before_step = pause

        async def talk() -> tuple[list[Event], list[Event]]:
            async with satellite(gateway) as silent, satellite(gateway) as client:
                await answer_to(silent, Ping().event())
                answer = asyncio.create_task(say(client, "hello"))
                await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)
                gateway.process.terminate()
                assert await silent.read_event() is None
                go_on.set()
                return await answer, [await client.read_event()]

        with gateway_process(tmp_path, service.path, CONFIG, PROGRAM) as gateway:
            events, behind = asyncio.run(talk())
            assert heard(events) == "It is noon."
            assert behind == [None]
            assert gateway.process.wait(TIMEOUT_SECONDS) == 0


def test_a_stop_does_not_wait_for_a_long_answer(tmp_path: Path) -> None:
    with running_service() as service:
        service.engine.rule = saying("It is noon. " * 20)
        entered = service.pause_step(5)

        async def talk() -> list[Event]:
            async with satellite(gateway) as client:
                await client.write_event(Event("transcript", {"text": "hello"}))
                assert (await client.read_event()).type == "handled-start"
                await asyncio.to_thread(entered.wait, TIMEOUT_SECONDS)
                gateway.process.terminate()
                events: list[Event] = []
                while event := await client.read_event():
                    events.append(event)
                return events

        config = CONFIG + "drain_seconds = 0\n"
        with gateway_process(tmp_path, service.path, config, PROGRAM) as gateway:
            *chunks, last, stop = asyncio.run(talk())
            assert {event.type for event in chunks} == {"handled-chunk"}
            assert (last.type, last.data["text"]) == (
                "not-handled",
                "The language model was stopped.",
            )
            assert stop.type == "handled-stop"
            assert gateway.process.wait(TIMEOUT_SECONDS) == 0
