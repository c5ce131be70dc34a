"""Bodies of llamad-http whose values would hold all streams are refused before they are read."""

import json
from typing import Any

import pytest

from llamad_http import fields
from llamad_http.errors import HttpError
from llamad_http.fields import MAX_TOKENS, parse_list, parse_object


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the bounds small."""
    monkeypatch.setattr(fields, "MAX_CONTAINERS", 100)
    monkeypatch.setattr(fields, "MAX_VALUES", 1000)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("{}," * 99 + "1", "more than 100 objects and lists"),
        ('{"a\\"":[]},' * 50 + "1", "more than 100 objects and lists"),
        ("1," * 1000 + "1", "more than 1000 values"),
        ('"",' * 1000 + "1", "more than 1000 values"),
        ('"",' * 10_000 + "1", "more than 1000 values"),
    ],
)
@pytest.mark.usefixtures("narrow")
def test_a_body_of_very_many_values_is_refused_unread(
    inner: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f'{{"messages": [{inner}]}}'
    json.loads(body)  # it is JSON

    def loads(*_: Any, **__: Any) -> Any:
        raise AssertionError("was read")

    monkeypatch.setattr(json, "loads", loads)
    with pytest.raises(HttpError) as refused:
        parse_object(body.encode())
    assert (refused.value.status, refused.value.reason) == (400, "INVALID_JSON")
    assert message in refused.value.message


@pytest.mark.parametrize(
    "text", ["{[,", 'a "quoted" {,', "back\\slash {,", 'ends with \\" {,', "\\", '"', '\\\\"{,']
)
@pytest.mark.usefixtures("narrow")
def test_what_stands_in_a_text_does_not_count(text: str) -> None:
    body = json.dumps({"prompt": text * 3000, "{[": [1, {"a": "b" + "\\"}]}).encode()
    assert parse_object(body).get("{[") == [1, {"a": "b\\"}]


@pytest.mark.usefixtures("narrow")
def test_as_many_objects_as_may_be_are_read() -> None:
    assert len(parse_list(b"[" + b"{}," * 98 + b"{}]", "rows").get("rows")) == 99
    assert len(parse_object(b'{"a": [' + b"1," * 998 + b"1]}").get("a")) == 999


def test_as_many_tokens_as_a_list_may_have_are_read() -> None:
    body = b'{"stream": true, "prompt": [' + b"7," * (MAX_TOKENS - 1) + b"7]}"
    assert len(parse_object(body).tokens("prompt")) == MAX_TOKENS
