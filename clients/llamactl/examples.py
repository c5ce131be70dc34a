"""Examples for the help of each command, and the overview that ``llamactl`` alone prints.

Owns their lines. ``tests/clients/test_help.py`` parses each of them.
"""

import argparse
import textwrap

from llamactl.command_words import ALIASES

EXAMPLES = {
    "run": (
        "llamactl run demo",
        'llamactl run qwen3-4b "Why is the sky blue?"',
        "llamactl run hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M",
    ),
    "ask": (
        'llamactl ask "Why is the sky blue?"',
        'llamactl ask --choice yes --choice no "Is the sky blue?"',
        'llamactl ask -c "And on Mars?"',
        'git log -3 | llamactl ask "Summarize these commits:"',
        'while read -r q; do llamactl ask --no-stdin "$q"; done < questions',
    ),
    "chat": ("llamactl chat", "llamactl chat -c", 'llamactl chat -s "Answer briefly."'),
    "status": ("llamactl status", "llamactl --json status"),
    "top": ("llamactl top",),
    "models": (
        "llamactl models",
        "llamactl models --catalogue",
        "llamactl models --fits qwen",
    ),
    "show": ("llamactl show", "llamactl show demo", "llamactl show --template demo"),
    "pull": (
        "llamactl pull demo",
        "llamactl pull hf.co/Qwen/Qwen3-4B-GGUF:Q4_K_M",
        "llamactl pull --move ./my-model.gguf",
    ),
    "use": ("llamactl use demo",),
    "unload": ("llamactl unload",),
    "rm": ("llamactl rm demo",),
    "jobs": ("llamactl jobs", "llamactl jobs --all"),
    "submit": (
        'llamactl submit "Write a long story."',
        'llamactl submit --key story-1 "Write a long story."',
    ),
    "watch": ("llamactl watch j3f2a", "llamactl watch --from 120 j3f2a"),
    "result": ("llamactl result j3f2a",),
    "batch": ("llamactl batch questions.jsonl answers.jsonl",),
    "cancel": ("llamactl cancel 3f2a",),
    "prefix": (
        "llamactl prefix add house house.txt",
        'llamactl prefix add short -s "Answer briefly."',
        "llamactl prefix list",
        "llamactl prefix rm house",
    ),
    "embed": ('llamactl embed "The sky is blue."', "llamactl embed < notes.txt > vectors.jsonl"),
    "tokenize": ('llamactl tokenize "The sky is blue."',),
    "metrics": ("llamactl metrics",),
    "health": ("llamactl health && echo ready",),
    "version": ("llamactl version",),
}

OVERVIEW = """\
llamactl talks to llamad, the service that runs language models on this machine.

First steps:
  llamactl run demo                       fetch a small model and talk to it
  llamactl ask "Why is the sky blue?"     one question
  llamactl chat                           a conversation
  llamactl search                         models that can be fetched by name
  llamactl status                         what the service is doing

Commands:
{commands}

{aliases}
"llamactl COMMAND --help" explains a command, "man llamactl" everything.
"""
WIDTH = 79
_HEADING = "examples:"


class HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions as usual and keeps the lines of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_HEADING):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Let the help of a command end with its examples."""
    command = parser.prog.split()[-1]
    parser.formatter_class = HelpFormatter
    parser.epilog = "\n".join([_HEADING, *(f"  {line}" for line in EXAMPLES[command])])


def overview(texts: dict[str, str]) -> str:
    """Return what ``llamactl`` alone prints. texts: what each command does."""
    width = max(map(len, texts))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in texts.items())
    words = ", ".join(f"{word} ({' '.join(meant)})" for word, meant in ALIASES.items())
    aliases = textwrap.fill(f"Other words for them: {words}.", WIDTH)
    return OVERVIEW.format(commands=commands, aliases=aliases)
