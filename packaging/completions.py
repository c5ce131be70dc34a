"""Write the shell completions of ``llamactl`` and ``llamad`` from their parsers.

    python packaging/completions.py [--check]

Names of models and jobs are asked of the service at the Tab where one may stand, and nowhere else:
that starts llamactl, which takes half a second. Names of the catalogue are read from its file.

Owns packaging/completions: for each program one file for bash, zsh and fish, generated and
committed, so that building a package needs no gRPC. ``--check`` only compares and exits with 1 when
a file is old.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "packaging" / "completions"
NOTE = "# Generated from the parser of %s by packaging/completions.py; do not edit."


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its spellings, what it takes and what it says about itself."""

    names: tuple[str, ...]
    text: str
    metavar: str  # empty: takes no value
    choices: tuple[str, ...]
    repeats: bool
    is_path: bool  # whether its value is a file


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program. takes_path: whether a file may be its argument."""

    name: str
    text: str
    flags: tuple[Flag, ...]
    takes_path: bool
    names: tuple[str, ...]  # of ``NAMES``: what its argument may be


# How the shells find the names of a kind; POSIX shell, and quiet where there are none. bash expands
# what it is given, so a name that is not plain, as a stranger's file may have, is left out.
_FIRST = "2>/dev/null | awk 'NR > 1 && $1 ~ /^[A-Za-z0-9._-]+$/ {print $1}'"
_CATALOGUE = '"${LLAMAD_CATALOGUE:-/usr/share/llamad/catalogue.toml}" 2>/dev/null'
NAMES = {
    "model": f"llamactl models {_FIRST}",
    "catalogue": "awk -F'\"' '/^(name|aliases) = / {for (i = 2; i < NF; i += 2)"
    f" if ($i ~ /^[A-Za-z0-9._-]+$/) print $i}}' {_CATALOGUE}",
    "job": f"llamactl jobs {_FIRST}",
    "submitted": f"llamactl jobs --all {_FIRST}",
}
ARGUMENT_NAMES = {  # of llamactl's commands
    "run": ("model", "catalogue"),
    "show": ("model",),
    "pull": ("catalogue",),
    "use": ("model",),
    "rm": ("model",),
    "cancel": ("job",),
    "watch": ("submitted",),
    "result": ("submitted",),
}


def read_commands(parser: argparse.ArgumentParser) -> tuple[tuple[Flag, ...], tuple[Command, ...]]:
    """Return the flags before the command, and the commands."""
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    texts = {action.dest: action.help or "" for action in subparsers._choices_actions}
    commands = (
        Command(n, texts[n], tuple(_flags(p)), _takes_path(p), _names(parser.prog, n))
        for n, p in subparsers.choices.items()
    )
    return tuple(_flags(parser)), tuple(commands)


def _names(program: str, command: str) -> tuple[str, ...]:
    return ARGUMENT_NAMES.get(command, ()) if program == "llamactl" else ()


def _takes_path(parser: argparse.ArgumentParser) -> bool:
    return any(_is_path(action) for action in parser._actions if not action.option_strings)


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in ("PATH", "SOURCE", "ADDRESS")


def _flags(parser: argparse.ArgumentParser) -> Iterator[Flag]:
    for action in parser._actions:
        if action.option_strings:
            takes_value = action.nargs != 0
            yield Flag(
                names=tuple(action.option_strings),
                text=action.help or "",
                metavar=str(action.metavar or action.dest.upper()) if takes_value else "",
                choices=tuple(map(str, action.choices or ())),
                repeats=isinstance(action, argparse._AppendAction),
                is_path=_is_path(action),
            )


def bash(program: str, flags: tuple[Flag, ...], commands: tuple[Command, ...]) -> str:
    """Return the completion for bash; it needs nothing of the package bash-completion."""
    with_value = {n for f in flags if f.metavar for n in f.names}
    cases = []
    for command in commands:
        cases.append(f"        {command.name}) flags='{_words(command.flags)}' ;;")
    every = {f.names: f for c in commands for f in (*flags, *c.flags)}.values()
    values = [f"        {'|'.join(f.names)}) {_bash_value(f)} ;;" for f in every if f.metavar]
    return "\n".join(
        [
            NOTE % program,
            *_name_functions(program),
            f"_{program}() {{",
            "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
            "    local command= flags i",
            "    COMPREPLY=()",
            "    for ((i = 1; i < COMP_CWORD; i++)); do",
            "        case ${COMP_WORDS[i]} in",
            f"        {'|'.join(sorted(with_value)) or _quote('')}) ((i++)) ;;",
            "        -*) ;;",
            "        *) command=${COMP_WORDS[i]}; break ;;",
            "        esac",
            "    done",
            "    case $before in",
            *values,
            "    esac",
            "    case $command in",
            f"        '') flags='{_words(flags)} {' '.join(c.name for c in commands)}' ;;",
            *cases,
            "        *) return ;;",
            "    esac",
            '    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")',
            *_bash_names(program, commands),
            f"    case $command in {'|'.join(c.name for c in commands if c.takes_path)})",
            "        compopt -o filenames 2>/dev/null",
            '        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$word") ;;',
            "    esac",
            "}",
            f"complete -F _{program} {program}",
            "",
        ]
    )


def _name_functions(program: str) -> list[str]:
    """Return a shell function for each kind of names."""
    if program != "llamactl":
        return []
    return [f"_{program}_{kind}() {{ {command}; }}" for kind, command in NAMES.items()]


def _bash_names(program: str, commands: tuple[Command, ...]) -> list[str]:
    """Return the lines that add the names, for a word that begins no flag."""
    named = [c for c in commands if c.names]
    if not named:
        return []
    lines = ["    case $word in -*) ;; *) case $command in"]
    for command in named:
        calls = "; ".join(f"_{program}_{kind}" for kind in command.names)
        lines.append(f'        {command.name}) flags="$({calls})"')
        add = 'mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "$flags" -- "$word")'
        lines.append(f"            {add} ;;")
    return [*lines, "    esac ;; esac"]


def _words(flags: tuple[Flag, ...]) -> str:
    return " ".join(name for flag in flags for name in flag.names)


def _bash_value(flag: Flag) -> str:
    if flag.metavar == "MODEL" and "-m" in flag.names:
        return 'mapfile -t COMPREPLY < <(compgen -W "$(_llamactl_model)" -- "$word"); return'
    if flag.is_path:
        return 'mapfile -t COMPREPLY < <(compgen -f -- "$word"); return'
    if flag.choices:
        words = " ".join(flag.choices)
        return f"mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\"); return"
    return "return"


def zsh(program: str, flags: tuple[Flag, ...], commands: tuple[Command, ...]) -> str:
    """Return the completion for zsh, a file for $fpath."""
    lines = [f"#compdef {program}", NOTE % program, *_name_functions(program)]
    lines += [f"_{program}() {{", "    local -a commands names"]
    lines += ["    local context state state_descr line", "    typeset -A opt_args"]
    lines += ["    commands=("]
    lines += [f"        {_quote(f'{c.name}:{c.text}')}" for c in commands]
    lines += ["    )", "    _arguments -C \\"]
    lines += [f"        {spec} \\" for flag in flags for spec in _zsh_specs(flag)]
    lines += ["        '1:command:->command' \\", "        '*::argument:->argument'"]
    lines += ["    case $state in", "    command) _describe command commands ;;"]
    lines += ["    argument)", "        case $line[1] in"]
    for command in commands:
        lines.append(f"        {command.name})")
        lines.append("            _arguments \\")
        specs = [spec for flag in command.flags for spec in _zsh_specs(flag)]
        lines += [f"                {spec} \\" for spec in specs]
        lines += ["                '*:: :_default'"]
        if command.names:
            calls = "; ".join(f"_{program}_{kind}" for kind in command.names)
            lines += [f'            [[ $PREFIX == -* ]] || names=(${{(f)"$({calls})"}})']
            lines += ["            (( $#names )) && compadd -a names"]
        lines += ["            ;;"]
    lines += ["        esac", "        ;;", "    esac", "}", f'_{program} "$@"', ""]
    return "\n".join(lines)


def _zsh_specs(flag: Flag) -> Iterator[str]:
    text = flag.text.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    if not flag.metavar:
        value = ""
    elif flag.is_path:
        value = f":{flag.metavar}:_files"
    else:
        value = f":{flag.metavar}:({' '.join(flag.choices)})"
    repeats = "*" if flag.repeats else ""
    for name in flag.names:
        yield _quote(f"{repeats}{name}[{text}]{value}")


def fish(program: str, flags: tuple[Flag, ...], commands: tuple[Command, ...]) -> str:
    """Return the completion for fish."""
    lines = [NOTE % program, f"complete -c {program} -f"]
    lines += [_fish_flag(program, flag, "__fish_use_subcommand") for flag in flags]
    for c in commands:
        where = "-n __fish_use_subcommand"
        lines.append(f"complete -c {program} {where} -a {c.name} -d {_quote(c.text)}")
    for c in commands:
        seen = f"__fish_seen_subcommand_from {c.name}"
        lines += [f"complete -c {program} -n {_quote(seen)} -F"] if c.takes_path else []
        for kind in c.names:
            names = _fish_quote(f"(sh -c {_fish_quote(NAMES[kind])})")
            lines += [f"complete -c {program} -n {_quote(seen)} -f -a {names}"]
        lines += [_fish_flag(program, flag, seen) for flag in c.flags]
    return "\n".join([*lines, ""])


def _fish_flag(program: str, flag: Flag, condition: str) -> str:
    words = [f"complete -c {program} -n {_quote(condition)}"]
    for name in flag.names:
        words.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    if flag.is_path:
        words.append("-r -F")
    elif flag.choices:
        words.append(f"-x -a {_quote(' '.join(flag.choices))}")
    elif flag.metavar:
        words.append("-x")
    if flag.text:
        words.append(f"-d {_quote(flag.text)}")
    return " ".join(words)


def _fish_quote(text: str) -> str:
    """Return text as one single-quoted word of fish."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote(text: str) -> str:
    """Return text as one single-quoted word of any of the shells."""
    if "'" in text:
        text = text.replace("'", "’")  # they disagree on how to escape an apostrophe
    return f"'{text}'"


WRITERS: dict[str, Callable[[str, tuple[Flag, ...], tuple[Command, ...]], str]] = {
    "{}": bash,
    "_{}": zsh,
    "{}.fish": fish,
}


def main() -> int:
    """Run the command line; return the exit code."""
    from llamactl.command_line import parser as llamactl_parser
    from llamad.__main__ import _parser as llamad_parser

    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: completions.py [--check]", file=sys.stderr)
        return 2
    old = []
    for parser in llamactl_parser(), llamad_parser(""):
        flags, commands = read_commands(parser)
        for name, write in WRITERS.items():
            path, text = FOLDER / name.format(parser.prog), write(parser.prog, flags, commands)
            if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
                old.append(path.relative_to(ROOT))
            elif not check:
                path.write_text(text, encoding="utf-8")
    for path in old:
        print(f"{path} is old: run packaging/completions.py", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
