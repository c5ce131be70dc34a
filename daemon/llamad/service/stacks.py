"""Where every thread of the process stands, for the journal when something hangs.

Owns the writing: the Python stacks, and what the kernel knows of each thread, those of the engine
included, which have no Python stack. A thread in state D waits for a device, such as a card that
does not answer; one in state R computes; one in state S waits for another.
"""

import faulthandler
import signal
import sys
from pathlib import Path

TASKS = Path("/proc/self/task")
# As the unit's WatchdogSignal= has it. SIGABRT, the default there, faulthandler takes only together
# with SIGBUS, which is the engine's own: a lost page of the model.
WATCHDOG_SIGNAL = signal.SIGQUIT


def write() -> None:
    """Write where everything stands to standard error."""
    for line in threads():
        print(line, file=sys.stderr)
    sys.stderr.flush()
    faulthandler.dump_traceback(sys.stderr)


def write_at_end() -> None:
    """Let the signal of systemd's watchdog write the Python stacks before it ends the process.

    So they are there too when the event loop hangs, and nobody could write them before. The signal
    ends the process also where whoever started it ignored it, as a shell does for what it puts in
    the background.
    """
    signal.signal(WATCHDOG_SIGNAL, signal.SIG_DFL)
    faulthandler.register(WATCHDOG_SIGNAL, file=sys.stderr, chain=True)


def forget_end() -> None:
    """Let that signal end the process without a word again."""
    faulthandler.unregister(WATCHDOG_SIGNAL)


def threads(tasks: Path = TASKS) -> list[str]:
    """Return a line for each thread: id, name, state, processor seconds, where it waits."""
    return [line for task in sorted(tasks.iterdir(), key=_number) if (line := _line(task))]


def _number(task: Path) -> int:
    return int(task.name)


def _line(task: Path) -> str | None:
    try:
        # proc_pid_stat(5): the name stands in brackets and may have any character
        head, _, rest = (task / "stat").read_text(errors="replace").rpartition(")")
        wait = (task / "wchan").read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None  # it has ended
    values = rest.split()
    ticks = int(values[11]) + int(values[12])
    name = head.partition("(")[2]
    return f"thread {task.name} {name!r} state={values[0]} cpu_ticks={ticks} waits_in={wait or '-'}"
