"""What the service tells systemd: readiness, status lines, the watchdog.

Owns the notify protocol (sd_notify(3)) as used here. Without NOTIFY_SOCKET, or with one that cannot
be reached, every call does nothing: a service started by hand is no error.
"""

import os

import sdnotify

SEND_SECONDS = 2.0  # the event loop sends; a manager that does not read must not stop it for good


class Notifier:
    """The notify socket of the service manager. Any thread may call it.

    What the manager does not take within ``send_seconds`` is lost.
    """

    def __init__(self, send_seconds: float = SEND_SECONDS) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(send_seconds)

    def ready(self, status: str) -> None:
        """Say that the service serves."""
        self._notify("READY=1", status)

    def status(self, status: str) -> None:
        """Show one line in ``systemctl status``."""
        self._notify(status=status)

    def stopping(self, status: str) -> None:
        """Say that the service is going down."""
        self._notify("STOPPING=1", status)

    def reloading(self) -> None:
        """Say that the configuration is being read again; ``ready`` ends it."""
        self._notify("RELOADING=1")

    def watchdog(self) -> None:
        """Say that the service is alive."""
        self._notify("WATCHDOG=1")

    def _notify(self, assignment: str = "", status: str = "") -> None:
        lines = [assignment] if assignment else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        # sdnotify encodes as Latin-1; this way UTF-8 is what arrives.
        self._notifier.notify("\n".join(lines).encode("utf-8", "replace").decode("latin-1"))


def watchdog_seconds() -> float | None:
    """Return the watchdog period that systemd asks of this process, or None."""
    try:
        period = int(os.environ["WATCHDOG_USEC"]) / 1e6
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return period if period > 0 and pid == os.getpid() else None
