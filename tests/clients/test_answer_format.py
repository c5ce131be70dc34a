"""The flags of llamactl that say what an answer must look like."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from llamactl.answer_format import add_flags, response_format


def wanted(*words: str) -> Any:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser)
    return response_format(parser.parse_args(words))


def test_each_flag_is_a_kind(tmp_path: Path) -> None:
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    schema.write_text('{"type": "integer"}')
    grammar.write_text('root ::= "ä"')
    assert wanted() is None
    assert wanted("--schema", str(schema)) == {"json_schema": {"type": "integer"}}
    assert wanted("--schema", ' {"enum": [1]}') == {"json_schema": {"enum": [1]}}
    assert wanted("--schema", "true") == {"json_schema": True}
    closed = {"json_schema": True, "closed_objects": True}
    assert wanted("--schema", "true", "--closed-objects") == closed
    assert wanted("--json-object") == {"json_object": True}
    assert wanted("--grammar", str(grammar)) == {"grammar": 'root ::= "ä"'}
    assert wanted("--grammar", 'root ::= "x"') == {"grammar": 'root ::= "x"'}
    assert wanted("--regex", "^a+$") == {"regex": "^a+$"}
    assert wanted("--choice", "a", "--choice", "b c") == {"choices": ["a", "b c"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schema", "{"], "no JSON"),
        (["--schema", "/nowhere/s.json"], "/nowhere/s.json: No such file"),
        (["--grammar", "/nowhere/g"], "/nowhere/g: No such file"),
        (["--regex", "a", "--choice", "b"], "not allowed with"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], message: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=message):
        wanted(*words)


def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(b" " * (1 << 18) + b"{")
    with pytest.raises(argparse.ArgumentError, match="has more than 262144 bytes"):
        wanted("--schema", str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(argparse.ArgumentError, match="is no UTF-8 at byte 0"):
        wanted("--schema", str(path))
