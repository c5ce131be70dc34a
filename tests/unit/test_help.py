"""The help of every command of ``llamad``: plain words that fit a terminal, examples that parse."""

import argparse
import shlex

import pytest

from llamad.__main__ import TOOLS, _parser

COMMANDS = ("serve", *TOOLS)
COLUMNS = 80


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        _parser(command).parse_args([command, "--help"] if command else ["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_help_is_plain_and_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = help_of(command, capsys)
    assert "`" not in text
    assert max(map(len, text.splitlines())) <= COLUMNS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_of_a_command_is_what_the_parser_takes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, examples = help_of(command, capsys).partition("examples:\n")
    commands = (line.partition(" > ")[0] for line in examples.splitlines())  # to a file
    lines = [shlex.split(line) for line in commands]
    assert [program for program, *_ in lines if program != "llamad"] == ["llamactl"] * (
        command == "serve"
    )
    parsed = [
        _parser(arguments[0]).parse_args(arguments)
        for program, *arguments in lines
        if program == "llamad"
    ]
    assert parsed
    assert all(isinstance(options, argparse.Namespace) for options in parsed)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_says_what_it_does(command: str) -> None:
    subparsers = next(
        a for a in _parser(command)._actions if isinstance(a, argparse._SubParsersAction)
    )
    for action in subparsers.choices[command]._actions:
        assert action.help, action.option_strings or action.dest
