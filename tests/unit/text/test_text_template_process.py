"""Templates that mean harm: each ends with an error that says so and costs its own process only."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.memory.demand import TEMPLATE_BYTES
from llamad.text import template_process
from llamad.text.template_process import BROKEN, FAILED, TemplateProcess
from unit.schedule.fakes import TIMEOUT_SECONDS

REQUEST_SECONDS = template_process._REQUEST_SECONDS  # what the service gives a template

HI: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "add_generation_prompt": True,
}


def grown(start: str, step: str) -> str:
    """Return a template that applies ``step`` to ns.x sixty times."""
    return (
        f"{{% set ns = namespace(x={start}) %}}"
        f"{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x | length }}}}"
    )


LONG = "('a' * 1900000)"
TIME = "runs longer than"
MEMORY = "needs more than 256 MiB"
OUTPUT = "gives more than 4194304 characters"
UNSAFE = "SecurityError"
RECURSION = "RecursionError"

# These run until they are killed.
ENDLESS = {
    "rfind": f"{{{{ {LONG}.rfind('a' ~ 'b' ~ 'a' * 900000) }}}}",
    "rindex": f"{{{{ {LONG}.rindex('a' ~ 'b' ~ 'a' * 900000) }}}}",
    "rsplit": f"{{{{ {LONG}.rsplit('a' ~ 'b' ~ 'a' * 900000) }}}}",
    "rpartition": f"{{{{ {LONG}.rpartition('a' ~ 'b' ~ 'a' * 900000) }}}}",
    "strip": f"{{{{ {LONG}.strip('b' * 1900000 ~ 'a') }}}}",
    "trim": f"{{{{ {LONG} | trim('b' * 1900000 ~ 'a') }}}}",
    "remainder of huge integers": "{% set x = ('f' * 1800000) | int(0, 16) %}"
    "{% set y = ('f' * 900001) | int(0, 16) %}{{ x % y }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "filtered loops": "{% for a in range(99999) %}{% for b in range(99999) if 0 %}{% endfor %}"
    "{% endfor %}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop(range(99999)) if loop.depth < 4 }}"
    "{% endfor %}",
    "recursive macro": "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}"
    "{{ f(40) }}",
    "chained generators": "{% for a in range(99999) | map('string') | list %}"
    "{% set x = range(99999) | map('string') | map('length') | sum %}{% endfor %}",
}

HARMFUL = {
    # memory, by text
    "{{ 'a' * 10 ** 9 }}": MEMORY,
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}": MEMORY,
    "{{ 'x'.center(1000000000) }}": MEMORY,
    "{{ 'x'.zfill(1000000000) }}": MEMORY,
    "{{ 'x' | indent(width=1000000000) }}": MEMORY,
    "{{ ('a\n' * 100000) | indent(99999) }}": MEMORY,
    "{{ ('a' * 100000).translate({97: 'a' * 100000}) }}": MEMORY,
    "{{ '%1000000000d' % 1 }}": MEMORY,
    "{{ '{:{}}'.format(1, 1000000000) }}": MEMORY,
    "{{ ('{0}' * 9999).format('a' * 100000) }}": MEMORY,
    "{{ ('%s' * 9999) | format(*(['a' * 100000] * 9999)) }}": MEMORY,
    "{{ ('a' * 100000).join('b' * 100000) }}": MEMORY,
    "{{ (['a' * 100000] * 10000) | join }}": MEMORY,
    "{{ (['a' * 100000] * 10000) | tojson }}": MEMORY,
    "{{ {'a': '<' * 99999999} | xmlattr }}": MEMORY,
    "{{ strftime_now('%1000000000Y') }}{{ missing.x }}": "Error",
    # memory, by containers
    "{{ ('a' * 30000000) | list | sort }}": MEMORY,
    "{% set x = ('ab' * 9000000) | list | unique | list %}{{ missing.x }}": f"{MEMORY}|undefined",
    "{% set x = ('a ' * 30000000).split() %}": MEMORY,
    "{{ ('a ' * 9000000) | wordwrap(1) }}": MEMORY,
    "{% set t = 'ab' * 1900000 %}{% set ns = namespace(k=[]) %}{% for i in range(3000) %}"
    "{% set ns.k = ns.k + [t[i:]] %}{% endfor %}{{ ns.k | length }}": MEMORY,
    grown("'aaaaaaaa'", "ns.x + ns.x"): MEMORY,
    grown("'aaaaaaaa'", "ns.x ~ ns.x"): MEMORY,
    grown("[1]", "[ns.x, ns.x]") + "{{ ns.x }}": MEMORY,
    grown("{}", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}": MEMORY,
    # integers
    "{{ 9 ** (9 ** 9) }}": MEMORY,
    "{{ ('9' * 1000000) | int * 2 }}{{ [].missing.x }}": "Error",
    "{{ 10 ** 100000 }}": "ValueError",
    # output
    "{% for i in range(99999) %}" + "a" * 1000 + "{% endfor %}": OUTPUT,
    "{% set x %}{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}{% endset %}": MEMORY,
    "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}": OUTPUT,
    # depth
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": RECURSION,
    "{% block a %}{{ self.a() }}{% endblock %}": RECURSION,
    "{{ " + "(" * 5000 + ")" * 5000 + " }}": RECURSION,
    "{{ " + "not " * 50000 + "1 }}": f"{RECURSION}|process ended",
    "{{ " + "[" * 300 + "]" * 300 + " }}": "Error",
    "{{ " + "-" * 900 + "1 }}": f"{RECURSION}|Error|process ended",
    "{{ a" + ".b" * 2000 + " }}": f"{RECURSION}|Error|process ended",
    "{% if 1 %}" * 200 + "{% endif %}" * 200: f"{RECURSION}|SyntaxError|Error",
    "{% for a in [1] %}" * 50 + "{% endfor %}" * 50: "SyntaxError|Error",
    # what is no template's business
    "{{ range(1000000000) }}": "OverflowError",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": UNSAFE,
    "{{ messages.__class__ }}": UNSAFE,
    "{{ messages['__class__'] }}": UNSAFE,
    "{{ '' | attr('__class__') }}": UNSAFE,
    "{{ [''] | map(attribute='__class__') | list }}": UNSAFE,
    "{{ self.__init__.__globals__ }}": UNSAFE,
    "{{ cycler.__init__.__globals__ }}": UNSAFE,
    "{{ raise_exception.__globals__ }}": UNSAFE,
    "{{ messages.append(1) }}": UNSAFE,
    "{{ messages[0].clear() }}": UNSAFE,
    "{{ '{0.__class__}'.format(1) }}": UNSAFE,
    "{{ '%s'.__mod__ }}": UNSAFE,
    "{% include 'other' %}": "no loader",
    "{% import '/etc/passwd' as x %}": "no loader",
    "{% extends messages %}": "Error",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ missing() }}": "'missing' is undefined",
    "{{ 'x'.encode('idna_no_such') }}": "LookupError",
    "{% set x = [] %}{{ x.append(x) }}{{ x | tojson }}": UNSAFE,
    "{{ messages | tojson(indent='a' * 300000000) }}": MEMORY,
    "{{ namespace(x=1) | tojson }}": "TypeError",
    "{% for %}": "line 1",
    "{{ 'a' | " + "no_such_filter_" * 9999 + " }}": "line 1: No filter named",
}


@contextmanager
def request_seconds(seconds: float) -> Iterator[None]:
    """Give a template so much time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_process, "_REQUEST_SECONDS", seconds)
        yield


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    """Give a template all the time that a busy machine may take, but where time is tested."""
    with request_seconds(TIMEOUT_SECONDS):
        yield


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess("")
    yield process
    process.close()


def load(process: TemplateProcess, source: str) -> None:
    """Give the process another template, as if it had been made for it."""
    process._source = source
    with process._lock:
        lives = process._child is not None and process._child.process.poll() is None
        child = process._started()
        if lives:
            process._ask(child, {"source": source})


def run(process: TemplateProcess, source: str) -> str:
    load(process, source)
    return process.render(HI)


def check_harmless(process: TemplateProcess, source: str, message: str) -> None:
    # on a busy machine, time may be short before anything else is
    kind, reasons = ErrorKind.CORRUPT, [BROKEN]
    with (  # noqa: PT012
        request_seconds(REQUEST_SECONDS),
        pytest.raises(LlamadError, match=f"{message}|{TIME}") as caught,
    ):
        load(process, source)
        kind, reasons = ErrorKind.INVALID, [BROKEN, FAILED]
        process.render(HI)
    assert caught.value.kind is kind
    assert caught.value.reason in reasons
    subject = "messages" if caught.value.reason == FAILED else "tokenizer.chat_template"
    assert caught.value.message.startswith(f"{subject}: ")
    assert len(caught.value.message) < 1000
    assert caught.value.message.isprintable()
    assert run(process, "{{ messages[0].content }}") == "hi"


@pytest.mark.parametrize("source", HARMFUL, ids=lambda source: source[:60])
def test_a_harmful_template_ends_with_an_error(process: TemplateProcess, source: str) -> None:
    check_harmless(process, source, HARMFUL[source])


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_template_is_killed(process: TemplateProcess, name: str) -> None:
    run(process, "")
    process._ask(process._started(), {"source": ENDLESS[name]})
    with request_seconds(0.2), pytest.raises(LlamadError, match=TIME) as caught:
        process.render(HI)
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"
    assert process._child is None
    assert run(process, "{{ messages[0].content }}") == "hi"


def test_a_template_that_does_not_compile_in_time_is_killed(process: TemplateProcess) -> None:
    run(process, "")
    with request_seconds(0.2), pytest.raises(LlamadError, match=TIME):
        run(process, "{{ a }}" * 140_000)
    assert run(process, "{{ messages[0].content }}") == "hi"


def test_a_refusal_is_one_printable_line(process: TemplateProcess) -> None:
    with pytest.raises(LlamadError, match="chat template: no tools") as caught:
        run(process, "{{ raise_exception('no tools\\x1b[2J\\n' ~ 'x' * 1000000) }}")
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def test_a_chat_on_which_a_template_fails_is_refused_with_what_it_says(
    process: TemplateProcess,
) -> None:
    load(process, "{{ messages[1].content + messages[0].missing }}")
    with pytest.raises(LlamadError) as caught:
        process.render(HI)
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.INVALID, "CHAT_TEMPLATE_FAILED")
    said = "UndefinedError: list object has no element 1"
    assert caught.value.message == f"messages: the model's chat template fails on them: {said}"


def test_a_process_that_dies_between_requests_is_replaced(process: TemplateProcess) -> None:
    run(process, "{{ messages[0].content }}")
    assert process._child is not None
    process._child.process.kill()
    process._child.process.wait()
    assert process.render(HI) == "hi"


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return signals; each request sends the next of them to its process, as if from outside."""
    signals: list[int] = []
    starting: list[int] = []
    answer, start = template_process._Child.answer, template_process._start

    def started() -> template_process._Child:
        starting.append(1)
        try:
            return start()
        finally:
            starting.clear()

    def killed(child: template_process._Child, deadline: float) -> dict[str, Any]:
        if signals and not starting:
            child.process.send_signal(signals.pop(0))
        return answer(child, deadline)

    monkeypatch.setattr(template_process, "_start", started)
    monkeypatch.setattr(template_process._Child, "answer", killed)
    return signals


def busy(process: TemplateProcess) -> None:
    """Give the process a template that does not end before it is killed."""
    run(process, "{% if messages | length > 1 %}" + ENDLESS["nested loops"] + "{% endif %}done")


BUSY = {"messages": HI["messages"] * 2}


def test_a_process_that_is_killed_in_a_request_is_replaced_once(
    process: TemplateProcess, kills: list[int]
) -> None:
    run(process, "{{ messages[0].content }}")
    process._ask(process._started(), {"source": ENDLESS["nested loops"]})
    kills[:] = [signal.SIGKILL]
    assert process.render(HI) == "hi"
    assert kills == []


def test_a_process_that_a_busy_machine_lets_wait_is_given_its_time(
    process: TemplateProcess, kills: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(process, "{{ messages[0].content }}")
    owed_seconds = template_process._Child._owed_seconds

    def goes_on(child: template_process._Child) -> float:
        child.process.send_signal(signal.SIGCONT)
        return owed_seconds(child)

    monkeypatch.setattr(template_process._Child, "_owed_seconds", goes_on)
    kills[:] = [signal.SIGSTOP]
    with request_seconds(0.2):
        assert process.render(HI) == "hi"


def test_a_process_that_is_killed_twice_is_no_fault_of_the_template(
    process: TemplateProcess, kills: list[int]
) -> None:
    busy(process)
    kills[:] = [signal.SIGKILL, 0, signal.SIGKILL]  # of request, template to the next, request
    with pytest.raises(LlamadError, match="it was killed by SIGKILL") as caught:
        process.render(BUSY)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.reason == "TEMPLATE_PROCESS_FAILED"
    assert caught.value.retry_after_seconds is not None
    assert kills == []
    assert process.render(HI) == "done"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGXCPU])
def test_a_process_that_exceeds_its_stack_or_its_time_is_the_templates_fault(
    process: TemplateProcess, kills: list[int], number: int
) -> None:
    busy(process)
    kills[:] = [number]
    with pytest.raises(LlamadError, match=f"its process ended with status -{number}") as caught:
        process.render(BUSY)
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"
    assert process.render(HI) == "done"


def test_without_a_process_the_service_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    process = TemplateProcess("x")
    process.close()
    monkeypatch.setattr(template_process, "_PROGRAM", Path("/no/such/program"))
    with pytest.raises(LlamadError, match="no process for the chat template: ") as caught:
        process.render(HI)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(LlamadError, match="No such file") as caught:
        process.render(HI)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    monkeypatch.undo()
    assert process.render(HI) == "x"
    process.close()


def test_the_process_has_no_descriptor_of_the_service(process: TemplateProcess) -> None:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    os.set_inheritable(server.fileno(), True)
    with server:
        process.close()
        run(process, "")
        assert process._child is not None
        folder = Path(f"/proc/{process._child.process.pid}/fd")
        assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2"]
        assert [(folder / name).readlink() for name in "12"] == [Path("/dev/null")] * 2


def test_signals_of_a_group_do_not_end_the_process_but_its_socket_does(
    process: TemplateProcess,
) -> None:
    run(process, "{{ messages[0].content }}")
    child = process._child
    assert child is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.process.send_signal(number)
    assert process.render(HI) == "hi"
    child._connection.shutdown(socket.SHUT_RDWR)
    assert child.process.wait(TIMEOUT_SECONDS) == 0


def test_an_idle_process_has_the_memory_that_is_planned_for_it() -> None:
    process = TemplateProcess("{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}")
    assert process.render({"messages": HI["messages"] * 100}) == "userhi" * 100
    assert process._child is not None
    rollup = Path(f"/proc/{process._child.process.pid}/smaps_rollup").read_text(encoding="ascii")
    own = dict(line.split()[:2] for line in rollup.splitlines()[1:])
    # Clean pages are of files: whether another process has them too depends on the machine.
    assert int(own["Private_Dirty:"]) << 10 <= TEMPLATE_BYTES
    process.close()


def test_a_forgotten_process_ends() -> None:
    process = TemplateProcess("x")
    assert process._child is not None
    running = process._child.process
    del process
    assert running.returncode is not None


def test_many_threads_may_render(process: TemplateProcess) -> None:
    run(process, "{{ messages[0].content }}")
    with ThreadPoolExecutor(4) as pool:

        def content(n: int) -> str:
            return process.render({"messages": [{"content": str(n)}]})

        assert list(pool.map(content, range(100))) == [str(n) for n in range(100)]


def test_a_long_conversation_is_no_harm(process: TemplateProcess) -> None:
    source = (
        "{% set ns = namespace(kept=[]) %}"
        "{% for m in messages %}{% set ns.kept = ns.kept + [m] %}{% endfor %}"
        "{% for m in ns.kept %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim"
        " + '<|im_end|>' + '\n' }}{% endfor %}"
    )
    run(process, source)
    messages = [{"role": "user", "content": "w🦙rd " * 1000}] * 400  # two million characters
    assert process.render({"messages": messages}).count("<|im_end|>") == 400
