"""llamactl submit, watch, result and batch against a service over a fake engine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.running import RunningService, running_service
from clients.test_llamactl import json_lines, prompts, run
from llamad_client import AsyncClient, Client
from unit.schedule.fakes import asynchronous, saying


@pytest.fixture
def service() -> Iterator[RunningService]:
    with running_service() as running:
        running.engine.rule = saying("An answer.")
        yield running


def test_a_question_is_submitted_watched_and_printed(service: RunningService) -> None:
    done = run(service.path, "submit", "--key", "k", "-s", "Be brief", "Why", "so?")
    assert (done.returncode, done.stderr) == (0, b"")
    job = done.stdout.decode().strip()
    assert run(service.path, "watch", job).stdout == b"An answer.\n"
    assert run(service.path, "watch", "--from", "3", job).stdout == b"answer.\n"
    assert run(service.path, "result", job).stdout == b"An answer.\n"
    events = json_lines(run(service.path, "--json", "watch", job).stdout)
    assert events[-1]["finish_reason"] == "stop"
    again = run(service.path, "--json", "submit", "--key", "k", "-s", "Be brief", "Why so?")
    [submitted] = json_lines(again.stdout)
    assert (submitted["job"]["id"], submitted["existing"]) == (job, True)
    assert prompts(service) == [b"system:Be brief|user:Why so?|"]
    reused = run(service.path, "submit", "--key", "k", "Why?")
    assert reused.returncode == 4
    assert b"belongs to job " + job.encode() in reused.stderr


@pytest.mark.parametrize("asked", [("-n", "4"), ()])
def test_a_cut_answer_says_no_more_than_is_known_of_the_job(
    service: RunningService, asked: tuple[str, ...]
) -> None:
    service.engine.rule = lambda history, seed, draw: 97 + draw % 26
    job = run(service.path, "submit", "--raw", "--no-loop-guard", *asked, "Why?").stdout.decode()
    for command in ("watch", "result"):
        done = run(service.path, command, job.strip())
        assert done.returncode == 0
        said = b"cut after 4 tokens, the most that this job may make" if asked else b"full"
        assert said in done.stderr
        assert b"may never end" not in done.stderr


def test_the_result_of_a_job_that_goes_on_is_an_error(service: RunningService) -> None:
    entered = service.pause_step(3)
    job = run(service.path, "submit", "--raw", "Why?").stdout.decode().strip()
    entered.wait()
    done = run(service.path, "result", job)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"has 3 tokens of its answer and goes on" in done.stderr
    assert run(service.path, "cancel", job).stdout.decode() == f"{job} cancelled\n"
    cancelled = run(service.path, "watch", job)
    assert (cancelled.returncode, cancelled.stdout) == (5, b"An \n")


def test_both_clients_submit_and_resume(service: RunningService) -> None:
    with Client(service.path) as client:
        submitted = client.submit("Why?", idempotency_key="k", seed=3)
        assert (submitted.existing, submitted.job.durable) == (False, True)
        completion = client.resume(submitted.job.id)
        assert (completion.text(), completion.result is not None) == ("An answer.", True)
        assert client.job(submitted.job.id).state == "finished"

    @asynchronous
    async def body() -> None:
        async with AsyncClient(service.path) as client:
            again = await client.submit("Why?", idempotency_key="k", seed=3)
            assert again.existing
            assert await client.resume(again.job.id, from_token=3).text() == "answer."
            assert (await client.job(again.job.id)).state == "finished"

    body()


# ---- batch ---------------------------------------------------------------------------------------


def batch(service: RunningService, folder: Path, *flags: str) -> Any:
    return run(service.path, "batch", *flags, str(folder / "in"), str(folder / "out"))


def write(folder: Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "in").write_text("\n".join(lines) + "\n", encoding="utf-8")


def answers(folder: Path) -> list[dict[str, Any]]:
    return json_lines((folder / "out").read_bytes())


def test_a_batch_answers_in_order_and_a_row_may_fail(
    service: RunningService, tmp_path: Path
) -> None:
    write(
        tmp_path,
        {"prompt": "one", "id": "first"},
        {"messages": [{"role": "user", "content": "two"}], "max_tokens": 2},
        "",
        {"prompt": "three", "temperature": 900},
        {"prompt": "four"},
    )
    done = batch(service, tmp_path, "--parallel", "2")
    first, second, third, fourth = answers(tmp_path)
    assert (first["id"], first["text"], first["finish_reason"]) == ("first", "An answer.", "stop")
    assert first["usage"]["completion_tokens"] == 11
    assert (second["id"], second["text"], second["finish_reason"]) == (2, "An", "length")
    assert (third["id"], third["error"]["reason"]) == (4, "INVALID_TEMPERATURE")
    assert (fourth["id"], fourth["text"]) == (5, "An answer.")
    assert done.returncode == 5
    assert b"row 4: temperature: is 900" in done.stderr
    assert b"4 rows: 1 failed" in done.stderr


def test_a_row_that_offers_tools_is_answered_with_their_calls(
    service: RunningService, tmp_path: Path
) -> None:
    called = '<tool_call>\n{"name": "lamp", "arguments": {"on": %s}}\n</tool_call>'
    service.engine.rule = saying("I look." + called % "true" + called % "false")
    parameters = {"type": "object", "properties": {"on": {"type": "boolean"}}}
    write(tmp_path, {"prompt": "Light!", "tools": [{"name": "lamp", "parameters": parameters}]})
    assert batch(service, tmp_path).returncode == 0
    [answer] = answers(tmp_path)
    assert (answer["text"], answer["finish_reason"]) == ("I look.", "tool_calls")
    calls = [(call["name"], call["arguments"]) for call in answer["tool_calls"]]
    assert calls == [("lamp", {"on": True}), ("lamp", {"on": False})]
    assert len({call["id"] for call in answer["tool_calls"]} - {""}) == 2


def test_a_second_run_goes_on_and_computes_nothing_twice(
    service: RunningService, tmp_path: Path
) -> None:
    write(tmp_path, *({"prompt": f"question {i}"} for i in range(6)))
    assert batch(service, tmp_path).returncode == 0
    whole = (tmp_path / "out").read_bytes()
    computed = len(prompts(service))
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    done = batch(service, tmp_path, "--json")
    assert done.returncode == 0
    assert json_lines(done.stdout) == [{"rows": 6, "answered": 4, "failed": 0}]
    assert (tmp_path / "out").read_bytes() == whole
    assert batch(service, tmp_path).stderr == (
        b"llamactl: 6 rows: all have their answer, 6 had it before\n"
    )
    assert len(prompts(service)) == computed == 6


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("no json", "line 2: is no JSON"),
        ("[1]", "line 2: is no JSON object"),
        ({"id": 1}, "line 2: give prompt or messages, one of them"),
        ({"prompt": "p", "messages": []}, "line 2: give prompt or messages, one of them"),
        ({"prompt": 3}, "line 2: prompt: is no text"),
        ({"prompt": "p", "temprature": 1}, "line 2: there is no option 'temprature'"),
        ({"prompt": "p", "max_tokens": "many"}, "line 2: max_tokens:"),
        ({"messages": [{"role": "user"}]}, "line 2: a message has no 'content'"),
        ({"messages": "text"}, "line 2: messages: is no list"),
        ({"messages": [7]}, "line 2: messages: one is no object"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_asked(
    service: RunningService, tmp_path: Path, row: object, said: str
) -> None:
    write(tmp_path, {"prompt": "right"}, row)
    done = batch(service, tmp_path)
    assert (done.returncode, said in done.stderr.decode()) == (4, True), done.stderr
    assert prompts(service) == []
    assert not (tmp_path / "out").exists()


def test_answers_to_something_else_are_left_alone(service: RunningService, tmp_path: Path) -> None:
    write(tmp_path, {"prompt": "p"})
    for content, said in (("my diary\n", "line 1: is no answer"), ('{"id": 7}\n', "answers 7")):
        (tmp_path / "out").write_text(content, encoding="utf-8")
        done = batch(service, tmp_path)
        assert (done.returncode, said in done.stderr.decode()) == (4, True)
        assert (tmp_path / "out").read_text(encoding="utf-8") == content
    assert prompts(service) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("watch", "--from", "-3", "j1"), "'-3' is no number of tokens, 0..4294967295"),
        (("watch", "--from", "x", "j1"), "'x' is no number of tokens"),
        (("submit", "--key", "", "Why?"), "argument --key: is empty"),
    ],
)
def test_a_wrong_flag_is_told_what_it_must_be(
    service: RunningService, words: tuple[str, ...], told: str
) -> None:
    done = run(service.path, *words)
    assert done.returncode == 2
    assert told in done.stderr.decode()
