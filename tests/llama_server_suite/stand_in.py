"""Our service and gateway in the place of llama-server, by its command line.

llama.cpp's tests start the program that LLAMA_SERVER_BIN_PATH names, once or more in each test.
That program is a few lines which hand its flags to one process here, and live until they are
ended; this process has imported everything, so a start takes the time of a fork. Their models
cannot be downloaded where these tests run: a tiny one that writes random words answers in the place
of those that write, a tiny encoder in the place of the others. Owns what each flag is with us. A
flag that is nothing with us (the size of a batch, the place of a cache) is taken and ignored.
"""

import argparse
import contextlib
import functools
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import gguf

import llamad.__main__
import llamad.daemon
import llamad_http.__main__
import llamad_http.all_routes
import llamad_http.server
from llamad_http.authorization import digest_of
from tiny_encoder import TinyEncoder
from tiny_gguf import TinySpec, write_tiny_model
from tiny_vocabulary import LETTERS, MERGES

PROGRAM = """#!{python} -IS
import socket, sys
import signal
place = socket.socket(socket.AF_UNIX)
place.connect({place!r})
signal.signal(signal.SIGTERM, lambda *_: place.shutdown(socket.SHUT_WR))
place.sendall("\\0".join(sys.argv[1:]).encode() + b"\\n")
place.recv(1)  # until service and gateway have ended, by themselves or because a test said so
"""
"""What their tests start."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
N_NO_WORDS = 3 + 256 + len(MERGES) + 1 + len(LETTERS)  # what a tiny vocabulary begins with

_SETTINGS = (
    *("--port", "--host", "--temp", "--ctx-size", "--parallel", "--alias", "--api-key"),
    *("--chat-template-file", "--cors-origins"),
)
_IGNORED = (
    *("--seed", "--n-predict", "--batch-size", "--ubatch-size", "--threads", "--model-tags"),
    *("--hf-repo", "--hf-file", "--pooling", "-fa", "-ctk", "-ctv", "--chat-template", "--tags"),
    *("--reasoning", "--reasoning-format", "--tools", "--media-path"),
)
_SWITCHES = (
    *("--embedding", "--reranking", "--offline", "--cont-batching", "--metrics", "--slots"),
    *("--no-slots", "--jinja", "--no-jinja", "--kv-unified", "--verbose", "--no-ui"),
    *("--backend_sampling", "--ui-mcp-proxy"),
)


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return a command line; a flag that nobody knows ends the program."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in (*_SETTINGS, *_IGNORED):
        parser.add_argument(flag)
    for flag in _SWITCHES:
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(arguments)


class StandIns:
    """The process that answers in the place of llama-server, with the files that it needs."""

    def __init__(self, templates: Path) -> None:
        """``templates``: the folder of llama.cpp's chat templates."""
        self._templates = templates

    def serve(self, place: Path) -> None:
        """Run a service for each connection to a Unix socket, until this process is ended."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place))
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = listener.accept()
            with connection:
                arguments = connection.makefile().readline().removesuffix("\n").split("\0")
                fork(functools.partial(self._stand_in, arguments, connection))

    def _stand_in(self, arguments: Sequence[str], connection: socket.socket) -> None:
        """Run service and gateway until one of them or the connection ends."""

        def end(number: int, frame: FrameType | None) -> None:
            raise SystemExit

        flags = read_flags(arguments)
        with tempfile.TemporaryDirectory() as name:
            signal.signal(signal.SIGCHLD, end)
            processes = self._start(Path(name), flags)
            with contextlib.suppress(SystemExit):
                connection.recv(1)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            for process in processes:
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # where both are gone
                os.wait()

    def _start(self, folder: Path, flags: argparse.Namespace) -> list[int]:
        """Start the service and the gateway before it; return their process ids."""
        model = self._model(folder, flags)
        slots = int(flags.parallel or 4)
        ctx_size = int(flags.ctx_size or 4096) // (1 if flags.kv_unified else slots)
        if flags.chat_template_file:
            ctx_size = 4096  # a tiny vocabulary needs many tokens for a template's text
        place = folder / "llamad.sock"
        service = folder / "llamad.toml"
        service.write_text(
            f'[service]\nstate_directory = "{folder}/state"\n'
            f"[model]\nctx_size = {ctx_size}\nn_sequences = {slots}\nlock = false\n"
            f"[sampling]\ntemperature = {flags.temp}\n"
        )
        (folder / "state").mkdir()
        keys = folder / "keys"
        if flags.api_key:
            digest = digest_of(flags.api_key)
            keys.write_text(f"tests normal user {digest} {int(time.time())}\n")
        gateway = folder / "http.toml"
        origins = f'origins = ["{flags.cors_origins}"]\n' if flags.cors_origins else ""
        gateway.write_text(f'[server]\nkeys = "{keys}"\n{origins}')
        listen = []
        for host in flags.host.split(","):
            listen += [
                "--listen",
                f"[{host}]:{flags.port}" if ":" in host else f"{host}:{flags.port}",
            ]
        served = ["serve", "--socket", str(place)]
        return [
            fork(
                lambda: llamad.__main__.main(
                    [*served, "--config", str(service), "--model", str(model)]
                )
            ),
            fork(lambda: llamad_http.__main__.main(["--config", str(gateway), *served, *listen])),
        ]

    def _model(self, folder: Path, flags: argparse.Namespace) -> Path:
        """Return a file in the folder whose name is the one that the flags give the model."""
        path = folder / f"{flags.alias or 'model'}.gguf"
        if flags.reranking:
            return TinyReranker(pooling=4, rank_scores=1).write(path)
        if flags.embedding:
            return TinyEncoder(n_ctx=1024).write(path)
        template = CHATML
        if flags.chat_template_file:
            file = self._templates / Path(flags.chat_template_file).name
            template = file.read_text(encoding="utf-8")
        return write_writer(path, template)


class TinyReranker(TinyEncoder):
    """An encoder whose file says how it wants a question and a text."""

    def _add_vocabulary(self, writer: gguf.GGUFWriter) -> None:
        super()._add_vocabulary(writer)
        writer.add_string("tokenizer.chat_template.rerank", "{query}[SEP]{document}")


def write_writer(path: Path, template: str) -> Path:
    """Write a model that draws words of two letters, by itself neither bytes nor its end.

    The logits of those are 0, and the 40 likeliest tokens, which alone are drawn, are above that.
    """
    spec = TinySpec(chat_template=template, n_ctx_train=8192, vocab_size=800)
    write_tiny_model(path, spec)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if tensor.name == "output.weight":
            tensor.data[:N_NO_WORDS] = 0
    return path


def fork(work: Callable[[], object]) -> int:
    """Run a function in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        code = int(bool(work()))
    except SystemExit as error:
        code = int(error.code or 0) if not isinstance(error.code, str) else 2
    finally:
        os._exit(code)


def main() -> None:
    """Serve: the folder of templates, the place of the socket."""
    templates, place = map(Path, sys.argv[1:])
    StandIns(templates).serve(place)


if __name__ == "__main__":
    main()
