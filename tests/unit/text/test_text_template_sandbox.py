"""Templates that mean harm: each ends with an error that names the limit, and soon."""

import math

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.text import ChatTemplate, template_budget, tokenizer_from_metadata
from unit.text.vocabularies import bpe_metadata

TOKENIZER = tokenizer_from_metadata(bpe_metadata())
STEPS = "computes too much: more than .* steps"
WIDE = "pads a field to more than 999 characters"
ARGUMENT = "passes an integer beyond 100000"
INTEGER = "computes an integer beyond 256 bits"
UNSAFE = "SecurityError"


@pytest.fixture(autouse=True)
def _no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the steps decide alone: a slow machine must not change an outcome."""
    monkeypatch.setattr(template_budget, "_MAX_CPU_SECONDS", math.inf)


def grown(start: str, step: str) -> str:
    """Return a template that applies ``step`` to ns.x sixty times."""
    return (
        f"{{% set ns = namespace(x={start}) %}}"
        f"{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x | length }}}}"
    )


HARMFUL = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": STEPS,
    "{% for a in range(99999) %}{% for b in range(99999) if 0 %}{% endfor %}{% endfor %}": STEPS,
    "{% for x in [1] recursive %}{{ loop(range(99999)) if loop.depth < 4 }}{% endfor %}": STEPS,
    "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(40) }}": STEPS,
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{% for i in range(99999) %}" + "a" * 1000 + "{% endfor %}": "more than 4194304 characters",
    "{% set x %}{% for i in range(99999) %}" + "a" * 999 + "{% endfor %}{% endset %}": STEPS,
    grown("'aaaaaaaa'", "ns.x + ns.x"): STEPS,
    grown("'aaaaaaaa'", "ns.x ~ ns.x"): STEPS,
    grown("[1]", "ns.x + ns.x"): STEPS,
    grown("[1]", "[ns.x, ns.x]"): STEPS,
    grown("[1]", "[ns.x] * 2"): STEPS,
    grown("(1,)", "(ns.x, ns.x)"): STEPS,
    grown("{}", "{'a': ns.x, 'b': ns.x}"): STEPS,
    grown("{}", "dict(a=ns.x, b=ns.x)"): STEPS,
    "{{ 'a' * 10 ** 9 }}": STEPS,
    "{{ 10 ** 9 * ['a'] }}": STEPS,
    "{{ (['a' * 100000] * 10000) | join }}": STEPS,
    "{{ (['a' * 100000] * 10000) | string }}": STEPS,
    "{{ (['a' * 100000] * 10000) | tojson }}": STEPS,
    "{{ ['a' * 100000] * 10000 }}": STEPS,
    "{{ range(100000) | join('a' * 100000) }}": STEPS,
    "{{ ('a' * 100000).join(range(100000) | list) }}": STEPS,
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}": STEPS,
    "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}": STEPS,
    "{{ 9 ** 9 ** 9 }}": INTEGER,
    "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}": INTEGER,
    "{{ 'x' | center(10 ** 9) }}": ARGUMENT,
    "{{ 'x'.center(1000000000) }}": ARGUMENT,
    "{{ 'x' | indent(width=1000000000) }}": ARGUMENT,
    "{{ [1] | map('center', 1000000000) | list }}": ARGUMENT,
    "{{ range(1000000000) }}": ARGUMENT,
    "{{ '%1000000000d' % 1 }}": WIDE,
    "{{ '%*d' % (1000000000, 1) }}": WIDE,
    "{{ '{:1000000000}'.format(1) }}": WIDE,
    "{{ '{:{}}'.format(1, 99999) }}": WIDE,
    "{{ '%(a)1000d' % {'a': 1} }}": WIDE,
    "{{ '%999d' * 99999 % ((1,) * 99999) }}": STEPS,
    "{{ ('{0}' * 9999).format('a' * 100000) }}": STEPS,
    "{{ ('{a}' * 9999).format(a='a' * 100000) }}": STEPS,
    "{{ ('%(a)s' * 9999) % {'a': 'a' * 100000} }}": STEPS,
    "{{ ('a' * 100000).join('b' * 100000) }}": STEPS,
    "{{ ('a' * 100000).join(range(99999) | map('string')) }}": STEPS,
    "{{ ('a\n' * 100000) | indent(99999) }}": STEPS,
    "{{ ('\t' * 100000).expandtabs(99999) }}": UNSAFE,
    "{{ 'a'.translate({97: 'a' * 100000}) }}": UNSAFE,
    "{{ strftime_now('%1000000000Y') }}": WIDE,
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": UNSAFE,
    "{{ messages.__class__ }}": UNSAFE,
    "{{ messages['__class__'] }}": UNSAFE,
    "{{ '' | attr('__class__') }}": UNSAFE,
    "{{ self.__init__.__globals__ }}": UNSAFE,
    "{{ raise_exception.__globals__ }}": UNSAFE,
    "{{ messages.append(1) }}": UNSAFE,
    "{{ messages[0].clear() }}": UNSAFE,
    "{{ '{0.__class__}'.format(1) }}": UNSAFE,
    "{% include 'other' %}": "no loader",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ missing() }}": "'missing' is undefined",
}


@pytest.mark.parametrize("source", HARMFUL, ids=lambda source: source[:60])
def test_a_harmful_template_ends_with_an_error(source: str) -> None:
    template = ChatTemplate(source, TOKENIZER)
    with pytest.raises(LlamadError, match=HARMFUL[source]) as caught:
        template.render([{"role": "user", "content": "hi"}])
    assert (caught.value.kind, caught.value.reason) == (ErrorKind.CORRUPT, "CHAT_TEMPLATE_INVALID")
    assert caught.value.message.startswith("tokenizer.chat_template: ")


def test_what_costs_no_steps_still_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_budget, "_MAX_CPU_SECONDS", -1.0)
    template = ChatTemplate("{% for i in range(999) %}{% endfor %}", TOKENIZER)
    with pytest.raises(LlamadError, match=r"computes too long: more than -1\.0 s"):
        template.render([{"role": "user", "content": "hi"}])


def test_a_long_conversation_is_no_harm() -> None:
    source = (
        "{% set ns = namespace(kept=[]) %}"
        "{% for m in messages %}{% set ns.kept = ns.kept + [m] %}{% endfor %}"
        "{% for m in ns.kept %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim"
        " + '<|im_end|>' + '\n' }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 1000}] * 400  # two million characters
    rendered = ChatTemplate(source, TOKENIZER).render(messages)
    assert rendered.count("<|im_end|>") == 400


def test_one_rendering_does_not_pay_for_another() -> None:
    template = ChatTemplate("{% for i in range(99999) %}{% endfor %}done", TOKENIZER)
    for _ in range(25):
        assert template.render([{"role": "user", "content": "hi"}]) == "done"
