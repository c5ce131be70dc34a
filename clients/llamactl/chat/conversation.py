"""The messages of a conversation: what was said, what of it is sent, and its file.

Owns the list. A turn is a question of the user and the answer to it, and comes or goes as a whole.
What the service left out because its context was full stays in the list, and is not sent again.
"""

import json
import os
from pathlib import Path

MAX_FILE_BYTES = 16 << 20  # of a file to load; the service takes 1 MiB of messages
ROLES = ("system", "user", "assistant")

Message = dict[str, str]


class FileFault(Exception):  # noqa: N818 - says what happened, as in llamad_client.errors
    """A file cannot be written, or does not hold messages; the text names it and the fault."""


class Conversation:
    """A system message, or none, and the turns so far."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[Message] = []
        self._n_left_out = 0  # oldest turns that are not sent

    def messages(self, question: str) -> list[Message]:
        """Return what is sent to the service for an answer to this question."""
        sent = self.turns[self._n_left_out :]
        return [*self._head(), *sent, {"role": "user", "content": question}]

    def add(self, question: str, answer: str) -> None:
        """Remember a turn."""
        self.turns.append({"role": "user", "content": question})
        self.turns.append({"role": "assistant", "content": answer})

    def leave_out(self, n_messages: int) -> None:
        """Send this many of the oldest messages no more: the service did not read them."""
        self._n_left_out = min(len(self.turns), self._n_left_out + n_messages)

    def reset(self) -> None:
        """Forget the turns; the system message stays."""
        self.turns.clear()
        self._n_left_out = 0

    def save(
        self, path: Path, *, replace: bool, whole: bool = True, max_bytes: int = MAX_FILE_BYTES
    ) -> int:
        """Write the messages as JSON, readable by this user only; return their number.

        whole: those too that are not sent any more. Raises FileFault; also where a file is there
        already, unless it may be replaced, and for more than max_bytes.
        """
        messages = [*self._head(), *self.turns[0 if whole else self._n_left_out :]]
        text = json.dumps(messages, ensure_ascii=False, indent=1) + "\n"
        data = text.encode("utf-8", "backslashreplace")  # half a surrogate pair stays valid JSON
        if len(data) > max_bytes:
            raise FileFault(f"{path}: would have {len(data)} bytes, at most {max_bytes}")
        try:
            if replace:
                part = path.with_name(f".{path.name}.{os.getpid()}.part")
                _write(part, data, os.O_TRUNC)
                part.replace(path)
            else:
                _write(path, data, os.O_EXCL)
        except FileExistsError:
            raise FileFault(f"{path}: is there already; name another file") from None
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise FileFault(f"{path}: {getattr(error, 'strerror', error)}") from None
        return len(messages)

    def load(self, path: Path) -> int:
        """Replace the conversation by the messages of a file; return their number.

        Raises FileFault, and then nothing is changed.
        """
        messages = _read(path)
        system = None
        if messages and messages[0]["role"] == "system":
            system = messages.pop(0)["content"]
        self.system, self.turns, self._n_left_out = system, messages, 0
        return len(messages) + (system is not None)

    def _head(self) -> list[Message]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]


def _write(path: Path, data: bytes, flag: int) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(number)  # before it is renamed: a power cut leaves the file before, or this one


def _read(path: Path) -> list[Message]:
    """Return the messages of a file. Raises FileFault."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise FileFault(f"{path}: {getattr(error, 'strerror', error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise FileFault(f"{path}: has more than {MAX_FILE_BYTES} bytes")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileFault(f"{path}: is no JSON: {error}") from None
    if not isinstance(values, list):
        raise FileFault(f"{path}: is no list of messages")
    return [_message(path, number, value) for number, value in enumerate(values, 1)]


def _message(path: Path, number: int, value: object) -> Message:
    """Return a message of a file. Raises FileFault."""
    if not isinstance(value, dict):
        raise FileFault(f"{path}: message {number}: is no object")
    role, content = value.get("role"), value.get("content")
    if role not in ROLES:
        raise FileFault(f"{path}: message {number}: role is none of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise FileFault(f"{path}: message {number}: content is no text")
    return {"role": role, "content": content}
