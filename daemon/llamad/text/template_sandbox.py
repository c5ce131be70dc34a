"""A place to run a template that nobody has reviewed: it came with a model file.

Jinja's immutable sandbox keeps a template away from Python. This one also bounds what it costs:
every loop turn, call, filter, operator, literal and output pays (``template_budget.py``), so
neither nested loops nor doubled strings hold up the service or fill its memory. Knows nothing of
chats: that is ``chat_template.py``.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, Never, cast

from jinja2 import Template, nodes, pass_context, pass_environment
from jinja2.environment import Environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from llamad.text.template_budget import (
    TemplateLimitError,
    budget,
    check_arguments,
    paid,
    pay,
    pay_call,
    pay_format,
    pay_method,
    source_characters,
    text_of,
)

MAX_OUTPUT_CHARACTERS = 4 << 20

_MAX_INTEGER_BITS = 256

_LOOP_FILTER = "llamad_loop"
_LITERAL_FILTER = "llamad_literal"
_CONCATENATE_FILTER = "llamad_concatenate"
_REMOVED_FILTERS = ("format", "pprint", "random", "urlize", "wordwrap", "xmlattr")
_REMOVED_METHODS = ("expandtabs", "maketrans", "translate")  # can make any size of any argument


def _loop(iterable: Iterable[Any], body_characters: int) -> Iterator[Any]:
    """Yield the elements of a loop; each pays for the constant text of the loop's body."""
    for element in iterable:
        pay(body_characters)
        yield element


def _concatenate(values: list[Any]) -> str:
    return "".join([text_of(value) for value in values])


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    parts = [text_of(part) for part in value]
    pay(len(d) * len(parts))
    return d.join(parts)


def _replace(s: Any, old: str, new: str, count: int = -1) -> str:
    text = text_of(s)
    pay_method(text, "replace", (old, new))
    return text.replace(old, new, count)


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = text_of(s)
    pay((text.count("\n") + 1) * (width if isinstance(width, int) else len(width)))
    return do_indent(text, width, first, blank)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as it is: jinja's own filter escapes it for HTML."""
    encoder = json.JSONEncoder(
        indent=indent, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys
    )
    return "".join([paid(part) for part in encoder.iterencode(value)])


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # also copies what jinja notes on a filter: whether it takes the context
    def metered(*args: Any, **kwargs: Any) -> Any:
        check_arguments(args)
        check_arguments(kwargs.values())
        return paid(function(*args, **kwargs))

    return metered


@pass_context
def _output(context: Context, value: Any) -> Any:
    """Pay for a value of the output; with the context, so that jinja computes none ahead."""
    return paid(value) if isinstance(value, str) else text_of(value)


class _GenerationExtension(Extension):
    """``{% generation %}`` marks what training learns from; here it only encloses."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Meter(NodeTransformer):
    """Puts the payments that jinja has no hook for into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        constant = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        node.iter = _filter(cast(nodes.Expr, node.iter), _LOOP_FILTER, nodes.Const(constant))
        return node

    def visit_List(self, node: nodes.List) -> nodes.Filter:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filter(node, _LITERAL_FILTER)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filter(node, _LITERAL_FILTER)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filter(node, _LITERAL_FILTER) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - jinja's name
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes), _CONCATENATE_FILTER)


def _filter(value: nodes.Expr, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """An environment for chat templates, with the white space rules of transformers."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        """``functions`` become globals of every template."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationExtension],
            optimized=False,
            finalize=_output,
        )
        self.globals.pop("lipsum")
        self.globals.update(functions)
        own = {
            "indent": _indent,
            "join": _join,
            "replace": _replace,
            "string": text_of,
            "tojson": _to_json,
        }
        self.filters = {
            name: _metered(own.get(name, function))
            for name, function in self.filters.items()
            if name not in _REMOVED_FILTERS
        }
        self.filters[_LOOP_FILTER] = _loop
        self.filters[_LITERAL_FILTER] = paid
        self.filters[_CONCATENATE_FILTER] = _concatenate

    def load(self, source: str) -> "SandboxedTemplate":
        """Compile a template.

        Raises jinja2.TemplateSyntaxError, or what Python's compiler says of the code made of it.
        """
        tree = _Meter().visit(self.parse(source))
        code = self.compile(tree)
        return SandboxedTemplate(
            Template.from_code(self, code, self.make_globals(None)), len(source)
        )

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have an attribute."""
        return attr not in _REMOVED_METHODS and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Never:
        """Refuse an attribute that leads out of the sandbox; jinja alone would print nothing."""
        raise SecurityError(f"attribute {attribute!r} of a {type(obj).__name__} is not accessible")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator whose result can be huge."""
        if operator == "*":
            for value, count in ((left, right), (right, left)):
                if isinstance(value, str | bytes | list | tuple) and isinstance(count, int):
                    pay(len(value) * max(count, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if abs(left) > 1 and abs(right) * left.bit_length() > _MAX_INTEGER_BITS:
                raise TemplateLimitError(f"computes an integer beyond {_MAX_INTEGER_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            pay_format(left, right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > _MAX_INTEGER_BITS:
            raise TemplateLimitError(f"computes an integer beyond {_MAX_INTEGER_BITS} bits")
        return paid(result)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, a macro, a method or the loop."""
        pay_call()
        check_arguments(args)
        check_arguments(kwargs.values())
        if isinstance(function, LoopContext) and args:
            args = (_loop(args[0], source_characters()), *args[1:])
        elif isinstance(function, Macro):
            pay(source_characters())
        receiver = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(receiver, str):
            if function.__name__ == "join":
                args = tuple(list(argument) for argument in args)
            pay_method(receiver, function.__name__, (*args, *kwargs.values()))
        return paid(super().call(context, function, *args, **kwargs))


class SandboxedTemplate:
    """A compiled template; any thread may render it."""

    def __init__(self, template: Template, source_characters: int) -> None:
        self._template = template
        self._source_characters = source_characters

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the output. Raises TemplateLimitError, or whatever the template's code raises."""
        parts, size = [], 0
        with budget(self._source_characters):
            for part in self._template.generate(variables):
                size += len(part)
                if size > MAX_OUTPUT_CHARACTERS:
                    raise TemplateLimitError(f"gives more than {MAX_OUTPUT_CHARACTERS} characters")
                parts.append(part)
        return "".join(parts)
