"""What can go wrong for a client, by what can be done about it.

Each error carries the service's stable UPPER_SNAKE ``reason`` and a ``message`` for people.
``retry_after_seconds`` is set where waiting helps and the service said how long. ``code`` is the
name of the gRPC status in lower case: the kind of an error, where its class says too little.
"""
# ruff: noqa: N818 - the names say what happened


class ClientError(Exception):
    """Any failed call."""

    code = "invalid_argument"  # of what is refused before it is sent

    def __init__(self, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class ServiceUnreachable(ClientError):
    """No service answers: it is not running, not permitted, still loading, or went away."""

    code = "unavailable"


class NotRunning(ServiceUnreachable):
    """Nobody listens on the socket."""


class NoPermission(ServiceUnreachable):
    """This user may not use the socket."""


class StillLoading(ServiceUnreachable):
    """The service runs, its model is not loaded yet."""


class Refused(ClientError):
    """The service did not accept the request: a field, the model, a full queue, or the rights."""


class Failed(ClientError):
    """An accepted request failed, or was ended by its deadline or by someone else."""
