"""The gRPC channel to an address: its options, the choice among several services, and TLS.

Owns what gRPC is told. With several services it takes them in turn and leaves out those whose
health service says that they cannot answer. It does not begin calls again (``retryPolicy``): gRPC
1.85 then waits for ever, whatever the deadline, when a connection breaks under a call; the clients
do that.
"""

import json
import os
from pathlib import Path

import grpc

from llamad_client.address import Address
from llamad_client.errors import ServiceUnreachable

CA_ENVIRONMENT = "LLAMAD_TLS_CA"
CERTIFICATE_ENVIRONMENT = "LLAMAD_TLS_CERT"

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A socket is cheap to try, so a service that is started again is found within a second; what
    # gRPC does by default, waiting for up to two minutes, is meant for networks.
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Against its name, how long one attempt may take, until the service's SETTINGS frame has come:
    # a service on a machine under load may take seconds for it, and has not lost any connection.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# A path is no host name: some servers refuse it as :authority.
_OF_SOCKETS = (("grpc.default_authority", "localhost"),)
# A board that lost its power closes no connection: a ping that stays without an answer does.
_OF_NETWORK = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
_IN_TURN: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
# Not through a proxy: the call that watches never ends, and would count as one that is answered.
_HEALTHY: dict[str, object] = {"healthCheckConfig": {"serviceName": ""}}


def options(address: Address) -> list[tuple[str, int | str]]:
    """Return the options of a channel to the address."""
    if address.tls:
        return [*_OPTIONS, *_OF_NETWORK, ("grpc.service_config", json.dumps(_IN_TURN))]
    if len(address.sockets) > 1:
        service_config = json.dumps(_IN_TURN | _HEALTHY)
        return [*_OPTIONS, *_OF_SOCKETS, ("grpc.service_config", service_config)]
    return [*_OPTIONS, *_OF_SOCKETS]


def open_channel(address: Address) -> grpc.Channel:
    """Return a channel, which connects when it is first used."""
    if address.tls:
        return grpc.secure_channel(address.target, _credentials(), options(address))
    return grpc.insecure_channel(address.target, options(address))


def open_async_channel(address: Address) -> grpc.aio.Channel:
    """Return a channel of the running event loop."""
    if address.tls:
        return grpc.aio.secure_channel(address.target, _credentials(), options(address))
    return grpc.aio.insecure_channel(address.target, options(address))


def _credentials() -> grpc.ChannelCredentials:
    """Return what TLS needs, from PEM files: the CA to trust; certificate and key to be known by.

    Without $LLAMAD_TLS_CA the roots that gRPC brings are trusted.
    """
    own = _file(CERTIFICATE_ENVIRONMENT)
    return grpc.ssl_channel_credentials(_file(CA_ENVIRONMENT), own, own)


def _file(variable: str) -> bytes | None:
    if not (name := os.environ.get(variable)):
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        message = f"{name}: {error.strerror} (from ${variable})"
        raise ServiceUnreachable("TLS_FILE_INVALID", message) from None
