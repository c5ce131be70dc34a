"""What the exit code says about an error of the client library."""

from llamad_client import ClientError, Refused, ServiceUnreachable

UNREACHABLE = 3
REFUSED = 4
FAILED = 5


def exit_code(error: ClientError) -> int:
    """Return the exit code that says how a command failed."""
    if isinstance(error, ServiceUnreachable):
        return UNREACHABLE
    return REFUSED if isinstance(error, Refused) else FAILED
