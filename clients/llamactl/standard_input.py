"""What of a prompt stands on standard input, and when it is not ours to read.

Owns the rule. Without words on the command line, standard input is the prompt. With words it joins
them, except in three cases: it is a terminal; ``--no-stdin`` was given; or it is a regular file of
which something was read already, because then it belongs to a loop such as ``while read -r q; do
llamactl ask "$q"; done < file``. Nobody can tell whose a pipe is, so a loop that reads a pipe needs
``--no-stdin``.
"""

import os
import select
import stat
import sys

from llamactl.output import print_note
from llamad_client import Refused

MAX_PROMPT_BYTES = 1 << 20  # the service's limit; reading more of an endless input has no point
NOTE_AFTER_SECONDS = 1.0


def joins_words(descriptor: int) -> bool:
    """Whether what can be read there belongs to the words of the command line."""
    try:
        mode = os.fstat(descriptor).st_mode
        return not stat.S_ISREG(mode) or os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    except OSError:  # closed: reading it says so
        return True


def read_prompt(words: str, *, raw: bool, no_stdin: bool, as_json: bool) -> str:
    """Return the words and what standard input adds to them after an empty line.

    raw: keep line ends at the end. Raises Refused for more than MAX_PROMPT_BYTES and for what is no
    UTF-8.
    """
    stream = sys.stdin
    if no_stdin or stream.isatty() or (words and not joins_words(stream.fileno())):
        return words
    _tell_of_waiting(stream.fileno(), as_json=as_json)
    try:
        data = stream.buffer.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise Refused("INVALID_PROMPT", f"prompt: standard input: {error.strerror}") from None
    if len(data) > MAX_PROMPT_BYTES:
        message = f"standard input has more than {MAX_PROMPT_BYTES} bytes"
        raise Refused("INVALID_PROMPT", f"prompt: {message}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"standard input is no valid UTF-8 at byte {error.start}"
        raise Refused("INVALID_PROMPT", f"prompt: {message}") from None
    if not raw:
        text = text.rstrip("\n")
    return "\n\n".join(part for part in (words, text) if part)


def _tell_of_waiting(descriptor: int, *, as_json: bool) -> None:
    """Say that standard input is waited for, when nothing comes for a second."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(NOTE_AFTER_SECONDS * 1000):
        print_note("waiting for standard input (--no-stdin does without)", as_json=as_json)
