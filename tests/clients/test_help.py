"""What llamactl says about itself: overview, help, aliases, near commands, short usage errors."""

import shlex
import subprocess

import pytest

from clients.running import environment, llamactl_command
from llamactl.command_line import parse, parser
from llamactl.command_words import ALIASES
from llamactl.examples import EXAMPLES
from llamad_client import __version__
from unit.schedule.fakes import TIMEOUT_SECONDS


def commands() -> dict[str, str]:
    """Return the commands and what each one's help says."""
    actions = [a for a in parser()._actions if a.dest == "COMMAND" or a.choices]
    choices = next(a.choices for a in actions if isinstance(a.choices, dict))
    return {name: choice.format_help() for name, choice in choices.items()}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        llamactl_command(*arguments),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
        timeout=TIMEOUT_SECONDS,
    )


def test_every_command_has_examples_that_its_parser_takes() -> None:
    assert set(EXAMPLES) == set(commands())
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line)
            start = words.index("llamactl")
            end = next((i for i, w in enumerate(words) if i > start and w in ("&&", ";")), None)
            given = [word.rstrip(";") for word in words[start + 1 : end]]
            if "done" in given:
                given = given[: given.index("done")]
            assert parse(given).run is not None
            assert name in given


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_help_ends_with_examples_and_has_no_markup(name: str) -> None:
    text = commands()[name]
    assert text.endswith("examples:\n" + "".join(f"  {line}\n" for line in EXAMPLES[name]))
    assert "`" not in text


def test_llamactl_alone_prints_an_overview_of_all_commands() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "llamactl run demo" in done.stdout
    for name in commands():
        assert f"\n  {name} " in done.stdout
    for alias in ALIASES:
        assert f"{alias} (" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_needs_no_service() -> None:
    done = run("--socket", "/nonexistent/s", "--version")
    assert (done.returncode, done.stdout) == (0, f"llamactl {__version__}\n")


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_its_command(alias: str) -> None:
    assert parse(["--socket", "s", alias]) == parse(["--socket", "s", *ALIASES[alias]])


def test_the_value_of_a_flag_is_no_command() -> None:
    assert parse(["--socket", "ls", "status"]).socket == "ls"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("stauts", "did you mean 'status'?"),
        ("lst", "did you mean 'list'?"),
        ("serve", '"llamad serve"'),
        ("xyzzy", '"llamactl" alone lists the commands'),
    ],
)
def test_a_word_that_is_no_command_gets_one_line(word: str, hint: str) -> None:
    done = run(word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"llamactl: no command {word!r}: ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_usage_error_is_one_line() -> None:
    done = run("ask", "--temperature", "hot", "q")
    assert done.returncode == 2
    assert done.stderr == (
        "llamactl ask: argument --temperature: invalid float value: 'hot'"
        ' ("llamactl ask --help" explains)\n'
    )


def test_help_of_a_command_by_the_word_help() -> None:
    assert run("help", "use").stdout == run("use", "--help").stdout


def test_words_of_a_prompt_may_stand_behind_flags() -> None:
    options = parse(["run", "demo", "-n", "5", "Why", "so?"])
    assert (options.model, options.prompt, options.max_tokens) == ("demo", ["Why", "so?"], 5)
    assert run("use", "a", "b").returncode == 2
    assert run("ask", "q", "--fly").stderr == (
        'llamactl ask: not known here: --fly ("llamactl ask --help" explains)\n'
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("ask", "--temprature", "0.5", "q"), "--temprature; did you mean --temperature?"),
        (("ask", "--maxtokens=5", "q"), "--maxtokens=5; did you mean --max-tokens?"),
        (("chat", "--top_k", "5"), "--top_k 5; did you mean --top-k?"),
        (("models", "--catalog"), ""),  # argparse takes what can only be one flag
        (("models", "--catalouge"), "--catalouge; did you mean --catalogue?"),
        (("status", "--temperature"), "--temperature ("),
        (("--sokcet", "s"), "--sokcet; did you mean --socket?"),
    ],
)
def test_a_flag_that_is_none_gets_the_one_that_was_meant(words: tuple[str, ...], hint: str) -> None:
    done = run("--socket", "/nonexistent/s", *words)
    if hint:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "not known here: " in done.stderr
        assert hint in done.stderr
    else:
        assert done.returncode == 0


@pytest.mark.parametrize("name", ["ask", "chat", "run"])
def test_flags_of_sampling_stand_together_below_the_others(name: str) -> None:
    text = commands()[name]
    places = [text.index(part) for part in ("--max-tokens", "--context-full", "\nsampling:")]
    assert places == sorted(places)
    assert text.index("  --temperature T") > places[-1] > text.index("  --stats ")
