"""What ``llamactl ask`` makes of an answer: thoughts, cuts, loops and models without a template."""

import json

import pytest

from clients.running import running_service
from clients.test_llamactl import json_lines, run
from llamad.text.thinking import ThinkingMarks
from unit.schedule.fakes import saying

MARKS = ThinkingMarks((("<think>", "</think>"),))


def test_a_pipe_gets_the_answer_without_the_thoughts() -> None:
    with running_service() as service:
        service.service.bench.model.thinking = MARKS
        service.engine.rule = saying("<think>\nHm.\n</think>\n\nYes.")
        done = run(service.path, "ask", "q")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"Yes.\n", b"")
        done = run(service.path, "--json", "ask", "q")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    texts = {
        kind: "".join(line["text"] for line in lines if line["type"] == kind)
        for kind in ("thinking", "delta")
    }
    assert texts == {"thinking": "Hm.", "delta": "Yes."}
    assert lines[-1]["reasoning_tokens"] > 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--think", "off"], {"enable_thinking": False}),
        (["--think", "on", "--template-arg", "a=[1]"], {"a": [1], "enable_thinking": True}),
        (["--template-arg", 'x="y=z"'], {"x": "y=z"}),
    ],
)
def test_arguments_of_the_template_reach_it(flags: list[str], expected: dict[str, object]) -> None:
    with running_service() as service:
        service.engine.rule = saying("Yes.")
        done = run(service.path, "ask", *flags, "q")
        assert done.returncode == 0
        assert service.service.bench.model.chat_template.arguments == [expected]


@pytest.mark.parametrize(
    "flags",
    [
        ["--template-arg", "x"],
        ["--template-arg", "x=y"],
        ["--think", "maybe"],
        ["--raw", "--think", "on"],
        ["--raw", "--context-full", "refuse"],
    ],
)
def test_wrong_flags_are_a_usage_error(flags: list[str]) -> None:
    with running_service() as service:
        assert run(service.path, "ask", *flags, "q").returncode == 2


def test_a_substitute_template_and_an_answer_that_repeats_itself_are_told() -> None:
    with running_service(n_ctx=1024) as service:
        service.service.bench.model.chat_template.substitute = "transcript"
        service.engine.rule = saying("x", then=ord("a"))
        done = run(service.path, "ask", "q")
        first, second = done.stderr.decode().splitlines()
        assert "has no chat template: the transcript one was taken" in first
        assert "only repeated itself" in second
        done = run(service.path, "ask", "--no-loop-guard", "-n", "700", "q")
        assert len(done.stdout) == 701


def test_an_answer_that_was_cut_without_a_bound_of_the_user_says_why() -> None:
    with running_service(n_ctx=1024) as service:
        service.service.bench.model.ends_answers = False
        service.engine.rule = saying("".join(chr(97 + i * i % 23 % 7) + str(i) for i in range(400)))
        done = run(service.path, "ask", "q")
    assert len(done.stdout) == 513
    assert "cut after 512 tokens" in done.stderr.decode()
    assert "--max-tokens" in done.stderr.decode()


def test_logprobs_are_in_the_lines_of_json() -> None:
    with running_service() as service:
        service.engine.rule = saying("An answer.")
        done = run(service.path, "--json", "ask", "--logprobs", "2", "q")
        refused = run(service.path, "ask", "--logprobs", "2", "q")
    told = [line["logprob"] for line in json_lines(done.stdout) if line["type"] == "delta"]
    assert "".join(entry["text"] for entry in told) == "An answer.\0"
    assert told[0]["bytes"] == [ord("A")]
    assert [len(entry["likeliest"]) for entry in told] == [2] * 11
    assert told[0]["likeliest"][1] == {"token": 98, "text": "b", "bytes": [98], "logprob": -1.0}
    assert (refused.returncode, b"--json" in refused.stderr) == (2, True)
