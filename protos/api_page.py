"""Write the reference of the gRPC interface as Markdown, from the comments of the .proto files.

    python protos/api_page.py OUT.md

Run it with the Python that has grpcio-tools, as generate.py. The rpcs of the services, then the
messages and enums, in the order of the files; the comment before a thing, or behind it, is its
description.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

ROOT = Path(__file__).resolve().parent
FILES = ("llamad", "admin", "generation", "status")
TITLE = """\
# API reference

The gRPC interface of llamad, made from the comments in `protos/llamad_api/v1`. The service listens
on the Unix socket `/run/llamad/llamad.sock`, without TLS. [Programs](programs.md) shows its use
from Python and other languages.
"""
# Numbers of fields in FileDescriptorProto, DescriptorProto, EnumDescriptorProto and
# ServiceDescriptorProto: a place in a file is a path of them, descriptor.proto (SourceCodeInfo).
Place = tuple[int, ...]
MESSAGES, ENUMS, SERVICES, FIELDS, NESTED, INNER_ENUMS, VALUES, METHODS = 4, 5, 6, 2, 3, 4, 2, 2


class Reference:
    """The text of one file; ``known`` are the names that links may lead to."""

    def __init__(self, file: pb.FileDescriptorProto, known: frozenset[str]) -> None:
        """Take a file with its source info."""
        self._file = file
        self._known = known
        self._comments = {
            tuple(place.path): " ".join(
                (place.leading_comments.strip() or place.trailing_comments.strip()).split()
            )
            for place in file.source_code_info.location
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines of the services, the messages and the enums."""
        for index, service in enumerate(self._file.service):
            yield from (f"## The service {service.name}", "", self._said((SERVICES, index)), "")
            yield from ("| rpc | asks with | answers with | |", "|---|---|---|---|")
            for number, rpc in enumerate(service.method):
                asked = self._link(rpc.input_type, stream=rpc.client_streaming)
                answer = self._link(rpc.output_type, stream=rpc.server_streaming)
                said = self._said((SERVICES, index, METHODS, number))
                yield f"| `{rpc.name}` | {asked} | {answer} | {said} |"
            yield ""
        for index, message in enumerate(self._file.message_type):
            yield from self._message(message, (MESSAGES, index), "")
        for index, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (ENUMS, index), "")

    def _message(self, message: pb.DescriptorProto, path: Place, within: str) -> Iterator[str]:
        if message.options.map_entry:
            return
        name = f"{within}{message.name}"
        yield from (f"### {name}", "", self._said(path), "")
        if message.field:
            yield from ("| field | type | |", "|---|---|---|")
            entries = {nested.name: nested for nested in message.nested_type}
            for number, field in enumerate(message.field):
                said = self._said((*path, FIELDS, number))
                if field.HasField("oneof_index") and not field.proto3_optional:
                    said = f"One of `{message.oneof_decl[field.oneof_index].name}`. {said}".strip()
                yield f"| `{field.name}` = {field.number} | {self._type(field, entries)} | {said} |"
            yield ""
        for number, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*path, NESTED, number), f"{name}.")
        for number, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, INNER_ENUMS, number), f"{name}.")

    def _enum(self, enum: pb.EnumDescriptorProto, path: Place, within: str) -> Iterator[str]:
        yield from (f"### {within}{enum.name}", "", self._said(path), "")
        yield from ("| value | |", "|---|---|")
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` = {value.number} | {self._said((*path, VALUES, number))} |"
        yield ""

    def _type(self, field: pb.FieldDescriptorProto, entries: dict[str, pb.DescriptorProto]) -> str:
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None and entry.options.map_entry:
            key, value = entry.field
            return f"map of {self._type(key, {})} to {self._type(value, {})}"
        plain = pb.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        name = self._link(field.type_name) if field.type_name else plain
        if field.label == pb.FieldDescriptorProto.LABEL_REPEATED:
            return f"list of {name}"
        return f"{name}, may be absent" if field.proto3_optional else name

    def _link(self, type_name: str, *, stream: bool = False) -> str:
        name = type_name.removeprefix(f".{self._file.package}.")
        link = f"[{name}](#{anchor(name)})" if name in self._known else f"`{name}`"
        return f"stream of {link}" if stream else link

    def _said(self, path: Place) -> str:
        """Return a comment as one cell of a table."""
        in_code, outside = r"(\|)", r"([|<*_\[])"
        return "".join(
            re.sub(in_code if part.startswith("`") else outside, r"\\\1", part)
            for part in re.split(r"(`[^`]*`)", self._comments.get(path, ""))
        )


def anchor(title: str) -> str:
    """Return the fragment that a heading gets."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def names(messages: Iterable[pb.DescriptorProto], within: str = "") -> Iterator[str]:
    """Yield the names of messages and of what they hold."""
    for message in messages:
        yield f"{within}{message.name}"
        yield from (f"{within}{message.name}.{enum.name}" for enum in message.enum_type)
        yield from names(message.nested_type, f"{within}{message.name}.")


def parsed() -> list[pb.FileDescriptorProto]:
    """Return the files, with their comments, in the order of FILES."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        files = [f"llamad_api/v1/{name}.proto" for name in FILES]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *files], cwd=ROOT, check=True)
        found = {file.name: file for file in pb.FileDescriptorSet.FromString(out.read_bytes()).file}
    return [found[name] for name in files]


def reference() -> str:
    """Return the whole page."""
    files = parsed()
    known = frozenset(name for file in files for name in names(file.message_type)) | {
        enum.name for file in files for enum in file.enum_type
    }
    lines = [line for file in files for line in Reference(file, known).lines()]
    return f"{TITLE}\n" + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main() -> int:
    """Run the command line; return the exit code."""
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
