"""The words that stand for a command: aliases, and what to say about one that is no command.

Owns the list of aliases, which are the words that users of similar programs type. An alias is
replaced before the line is parsed, so help, man page and completions have each command once.
"""

import difflib
from collections.abc import Collection, Sequence

ALIASES = {
    "list": ("models",),
    "ls": ("models",),
    "ps": ("status",),
    "stop": ("unload",),
    "search": ("models", "--catalogue"),
}
_ELSEWHERE = {  # what is done by another program, or by another name that is not the same
    "serve": 'the service is "llamad serve"',
    "create": '"llamad convert" makes a model file, "llamactl pull FILE" adds one',
    "quantize": 'that is "llamad quantize"',
    "bench": 'that is "llamad bench"',
    "fit": 'that is "llamad fit"',
    "inspect": 'that is "llamad inspect", or "llamactl show MODEL"',
    "load": '"llamactl use MODEL" loads a model',
    "add": '"llamactl pull FILE" adds a model',
}


def command_index(arguments: Sequence[str]) -> int | None:
    """Return where the command stands behind the global flags; None when there is none."""
    i = 0
    while i < len(arguments):
        word = arguments[i]
        if word == "--socket":
            i += 1
        elif not word.startswith("-"):
            return i
        i += 1
    return None


def with_aliases_replaced(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the command in place of its alias, and `help ask` turned."""
    words = list(arguments)
    i = command_index(words)
    if i is None:
        return words
    if words[i] == "help":
        return [*words[:i], *words[i + 1 : i + 2], "--help"]
    words[i : i + 1] = ALIASES.get(words[i], (words[i],))
    return words


def problem(word: str, commands: Collection[str]) -> str:
    """Return what is wrong with a word that should be a command; empty when it is one."""
    if word in commands:
        return ""
    if word in _ELSEWHERE:
        hint = _ELSEWHERE[word]
    else:
        near = difflib.get_close_matches(word, [*commands, *ALIASES], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else '"llamactl" alone lists the commands'
    return f"no command {word!r}: {hint}"


def near_flags(words: Sequence[str], flags: Collection[str]) -> str:
    """Return what may have been meant by those of the words that look like flags; or empty."""
    names = [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
    found = []
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and not any(known.startswith(name) for known in names):
            found += difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {', '.join(f'--{name}' for name in found)}?" if found else ""
