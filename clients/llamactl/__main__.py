"""The program: signals and standard streams first, then everything that takes time to import."""

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process; return the exit code."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:  # and not in the background, where a shell ignores the signal
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from llamactl import streams

    streams.reserve_descriptors()
    from llamactl.command_line import run  # imports grpc

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    streams.open_streams()
    return run()


if __name__ == "__main__":
    sys.exit(main())
