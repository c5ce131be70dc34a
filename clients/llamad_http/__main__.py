"""The program ``llamad-http``: ``serve`` answers, ``key`` manages the API keys.

Exit codes are llamactl's: 0 done, 2 usage or configuration, 5 failed.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamad_gateway import config_file, sockets
from llamad_gateway.config_file import ConfigError
from llamad_gateway.journal import set_up_logs
from llamad_http import __version__
from llamad_http.authorization import CLASSES, Authorization, Keys, Origins, add_key, remove_key
from llamad_http.config import DEFAULT_PATH, Config

USAGE, FAILED = 2, 5


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        "llamad-http",
        description="HTTP gateway: the APIs of OpenAI, Anthropic, Ollama and llama-server.",
    )
    top.add_argument("--version", action="version", version=f"llamad-http {__version__}")
    top.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="answer HTTP requests")
    serve.add_argument(
        "--listen", action="append", metavar="ADDRESS", help="HOST:PORT or unix:PATH; repeatable"
    )
    serve.add_argument("--socket", metavar="PATH", help="of the service llamad")
    key = commands.add_parser("key", help="add, list and remove API keys")
    verbs = key.add_subparsers(dest="verb", required=True, metavar="add|list|rm")
    add = verbs.add_parser("add", help="make a key and print it; it is shown only once")
    add.add_argument("name", help="owner of the key's requests")
    add.add_argument("--priority", choices=CLASSES, default="normal", help="most urgent class")
    add.add_argument("--admin", action="store_true", help="may also manage models")
    verbs.add_parser("list", help="list the keys")
    rm = verbs.add_parser("rm", help="remove a key")
    rm.add_argument("name")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = parser().parse_args(arguments)
    try:
        config = config_file.load(Config, given.config, DEFAULT_PATH)
        if given.command == "key":
            return manage_keys(given, Path(config.keys))
        if given.listen:
            config = replace(config, listen=tuple(given.listen))
        if given.socket:
            config = replace(config, socket=given.socket)
        set_up_logs()
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        asyncio.run(serve(config))
    except ConfigError as error:
        print(f"llamad-http: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130
    return 0


def manage_keys(given: argparse.Namespace, path: Path) -> int:
    """Run ``key``; return the exit code."""
    try:
        match given.verb:
            case "add":
                print(add_key(path, given.name, given.priority, given.admin))
            case "rm":
                remove_key(path, given.name)
            case "list":
                for key in Keys(path).all():
                    rights = "admin" if key.is_admin else "user"
                    day = time.strftime("%Y-%m-%d", time.gmtime(key.created))
                    print(f"{key.name:24} {key.most_urgent:11} {rights:5} {day}")
    except (OSError, ValueError) as error:
        print(f"llamad-http: {error}", file=sys.stderr)
        return FAILED
    return 0


async def serve(config: Config) -> None:
    """Serve until a signal. Raises ConfigError."""
    from llamad_client import AsyncClient, ClientError
    from llamad_http import server  # uvicorn and grpc take time to import
    from llamad_http.all_routes import all_routes
    from llamad_http.application import Application
    from llamad_http.gateway import Gateway

    keys = Keys(Path(config.keys) if config.keys else None)
    try:
        n_keys = len(keys.all())
    except (OSError, ValueError) as error:
        raise ConfigError(f"server.keys: {error}") from None
    inherited = sockets.inherited_sockets()
    listening = inherited or sockets.open_sockets(config.listen)
    beyond = any(map(sockets.is_beyond_loopback, listening))
    if beyond and not n_keys and not config.allow_unauthenticated:
        raise ConfigError(
            f"{', '.join(sockets.urls('http', listening))}: reachable from other machines, and"
            " there is no API key: make one (llamad-http key add NAME), or listen on 127.0.0.1"
        )
    try:
        client = AsyncClient(config.socket)
        client.address.require_one("this gateway")
    except ClientError as error:
        raise ConfigError(f"service.socket: {error}") from None
    async with client:
        gateway = Gateway(client, config)
        application = Application(
            config,
            gateway,
            all_routes(),
            Authorization(
                keys,
                beyond_loopback=beyond,
                allow_unauthenticated=config.allow_unauthenticated,
                priority=config.priority,
            ),
            Origins(config.hosts, config.origins),
        )
        await server.Server(config, gateway, application).run_on(
            listening, activated=bool(inherited)
        )


if __name__ == "__main__":
    sys.exit(main())
