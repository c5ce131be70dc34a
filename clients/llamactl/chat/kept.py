"""Conversations that can be gone on with: what ``-c`` of ``ask``, ``chat`` and ``run`` finds.

Owns the folder ``$XDG_STATE_HOME/llamactl/conversations``: one file each, in the form that /save
writes and /load reads, for this user only. A file is replaced as a whole, and what the context has
no room for is left out. The newest is the last conversation; the oldest of more than
``MAX_CONVERSATIONS`` are deleted. A file that cannot be read is told of and left alone.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from llamactl.chat.conversation import Conversation, FileFault

MAX_CONVERSATIONS = 50
MAX_FILE_BYTES = 4 << 20  # the service takes 1 MiB of messages


def state_folder() -> Path:
    """Return where llamactl keeps what is no setting, by the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / "llamactl"
    try:
        return Path("~/.local/state/llamactl").expanduser()
    except RuntimeError:  # a user whom nobody knows has no home
        return Path("/nonexistent/llamactl")


class Keeper:
    """Keeps one conversation; nothing is written before its first answer."""

    def __init__(self, folder: Path, path: Path | None = None) -> None:
        """path: of a conversation that is gone on with."""
        self._folder = folder
        self._path = path
        self._failed = False

    def keep(self, conversation: Conversation) -> str:
        """Write what would be sent with the next question; say why that failed, but only once."""
        if self._failed:
            return ""
        try:
            self._write(conversation)
        except FileFault as fault:
            self._failed = True
            return f"--continue will not know this conversation: {fault}"
        return ""

    def _write(self, conversation: Conversation) -> None:
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FileFault(f"{self._folder}: {error.strerror}") from None
        is_new = self._path is None
        if self._path is None:
            now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            self._path = self._folder / f"{now}-{os.getpid()}.json"
        conversation.save(self._path, replace=True, whole=False, max_bytes=MAX_FILE_BYTES)
        if is_new:
            self._delete_oldest()

    def forget(self) -> None:
        """Delete what was kept; what is said from now on is another conversation."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._path = None

    def begin(self) -> None:
        """Keep what is said from now on as another conversation."""
        self._path = None

    def _delete_oldest(self) -> None:
        left = self._folder.glob(".[0-9]*.part")  # by processes that were killed
        for path in (*_newest_first(self._folder)[MAX_CONVERSATIONS:], *left):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation, where it is kept, and what there is to say of its beginning."""

    conversation: Conversation
    keeper: Keeper
    note: str


def open_conversation(system: str | None, *, go_on: bool) -> Opened:
    """Return the last conversation, or a new one.

    system: the system message, which takes the place of an earlier one; None leaves that.
    """
    folder = state_folder() / "conversations"
    conversation, keeper = Conversation(system), Keeper(folder)
    if not go_on:
        return Opened(conversation, keeper, "")
    last = next(iter(_newest_first(folder)), None)
    if last is None:
        return Opened(conversation, keeper, "there is no earlier conversation: this is a new one")
    try:
        conversation.load(last)
    except FileFault as fault:
        return Opened(conversation, keeper, f"{fault}; it stays there, this is a new conversation")
    if system is not None:
        conversation.system = system
    return Opened(conversation, Keeper(folder, last), "")


def can_go_on() -> bool:
    """Whether there is a last conversation."""
    return bool(_newest_first(state_folder() / "conversations"))


def _newest_first(folder: Path) -> list[Path]:
    """Return the conversations of a folder; of files that change meanwhile, those that are seen."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder.glob("[0-9]*.json"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(found, reverse=True)]
