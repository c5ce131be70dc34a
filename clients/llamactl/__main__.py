"""The program: the standard streams first, then everything that takes time to import."""

import signal
import sys

from llamactl import streams


def main() -> int:
    """Run the command line of this process; return the exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an import has no traceback worth seeing
    streams.reserve_descriptors()
    from llamactl.command_line import run  # imports grpc

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    streams.open_streams()
    return run()


if __name__ == "__main__":
    sys.exit(main())
