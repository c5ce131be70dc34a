"""Stop one thread of a process from outside, as a step that hangs stands still: by ptrace(2).

    python stopped_thread.py PID NAME

Prints "stopped" when the thread of this name stands, and ends with the process. Needs to be root,
or to have the user and the right of an ancestor of the process; the process is not changed.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# linux/ptrace.h and linux/wait.h
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000


def thread_named(pid: int, name: str) -> int:
    """Return the id of a process's thread; AssertionError when there is none."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if (task / "comm").read_text().strip() == name:
                return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name}")


@contextlib.contextmanager
def stopping(pid: int, name: str) -> Iterator[None]:
    """Stop a thread until its process, or the block, ends; it stands when the block begins."""
    command = [sys.executable, __file__, str(pid), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "stopped\n"
            yield
        finally:
            holder.kill()


def _ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")


def main() -> None:
    """Run the command line."""
    thread = thread_named(int(sys.argv[1]), sys.argv[2])
    _ptrace(PTRACE_SEIZE, thread)
    _ptrace(PTRACE_INTERRUPT, thread)
    while not os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
        pass
    print("stopped", flush=True)
    try:
        while not os.WIFSIGNALED(os.waitpid(thread, WALL)[1]):
            pass
    except OSError as error:
        if error.errno != errno.ECHILD:
            raise


if __name__ == "__main__":
    main()
