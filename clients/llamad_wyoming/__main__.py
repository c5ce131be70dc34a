"""The program ``llamad-wyoming``: it answers the transcripts of voice satellites.

Exit codes are llamactl's: 0 done, 2 usage or configuration.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamad_gateway import config_file, sockets
from llamad_gateway.config_file import ConfigError
from llamad_gateway.journal import set_up_logs
from llamad_wyoming import __version__
from llamad_wyoming.config import DEFAULT_PATH, Config

USAGE = 2
STATUS_SECONDS = 3.0  # Home Assistant waits 5 for what there is


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        "llamad-wyoming", description="Answers of llamad for voice satellites, by Wyoming."
    )
    top.add_argument("--version", action="version", version=f"llamad-wyoming {__version__}")
    top.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="answer transcripts")
    serve.add_argument(
        "--listen", action="append", metavar="ADDRESS", help="HOST:PORT or unix:PATH; repeatable"
    )
    serve.add_argument("--socket", metavar="PATH", help="of the service llamad")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = parser().parse_args(arguments)
    try:
        config = config_file.load(Config, given.config, DEFAULT_PATH)
        if given.listen:
            config = replace(config, listen=tuple(given.listen))
        if given.socket:
            config = replace(config, socket=given.socket)
        set_up_logs()
        asyncio.run(serve(config))
    except ConfigError as error:
        print(f"llamad-wyoming: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(config: Config) -> None:
    """Serve until a signal. Raises ConfigError."""
    from llamad_client import AsyncClient, ClientError  # grpc takes time to import
    from llamad_wyoming.answers import Answers
    from llamad_wyoming.server import Server

    inherited = sockets.inherited_sockets()
    listening = inherited or sockets.open_sockets(config.listen)
    if any(map(sockets.is_beyond_loopback, listening)) and not config.allow_other_machines:
        raise ConfigError(
            f"{', '.join(sockets.urls('tcp', listening))}: reachable from other machines, and"
            " Wyoming has no keys: set server.allow_other_machines = true where everybody on the"
            " network may ask, or listen on 127.0.0.1"
        )
    try:
        client = AsyncClient(config.socket, timeout_seconds=STATUS_SECONDS)
        client.address.require_one("this gateway")
    except ClientError as error:
        raise ConfigError(f"service.socket: {error}") from None
    async with client:
        server = Server(config, Answers(client, config))
        await server.run_on(listening, activated=bool(inherited))


if __name__ == "__main__":
    sys.exit(main())
