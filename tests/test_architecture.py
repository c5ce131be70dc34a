"""The import graph, the layers of the C headers, and the size of files, as ARCHITECTURE.md says.

The tables below are the rules; a new package or C file has to be given its place in them.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from project_files import ROOT, project_files

SOURCE_ROOTS = ("daemon", "clients", "protos")
MAX_LINES = 500
OUR_PACKAGES = (
    "llamad",
    "llamad_client",
    "llamactl",
    "llamad_gateway",
    "llamad_http",
    "llamad_wyoming",
    "llamad_api",
)

LEAVES = (
    "llamad.board",
    "llamad.clock",
    "llamad.errors",
    "llamad.help_text",
    "llamad.logs",
    "llamad.printable",
    "llamad.ranges",
    "llamad.signals",
    "llamad.sizes",
    "llamad.small_file",
    "llamad.streams",
    "llamad.systemd",
    "llamad.template_arguments",
    "llamad.users",
)

# What the APIs of the HTTP gateway stand on.
GATEWAY_CORE = tuple(
    f"llamad_http.{name}"
    for name in (
        "adapters",
        "administration",
        "completion",
        "errors",
        "exchange",
        "fields",
        "formats",
        "gateway",
        "models",
        "rerank",
        "routes",
        "vectors",
        "logprobs",
        "sampling",
        "sse",
        "timings",
        "tools",
    )
)

# Who may import whom; the longest prefix of a module's name is its row. Everybody may import its
# own package, and the name `llamad` itself (its version).
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "llamad_api": (),
    "llamad_client": ("llamad_api",),
    "llamactl": ("llamad_client",),
    "llamad_gateway": (),
    "llamad_wyoming": ("llamad_client", "llamad_gateway"),
    # An API of the gateway is a folder that knows the rest of the gateway, and no other API.
    "llamad_http": ("llamad_client", "llamad_gateway"),
    "llamad_http.anthropic": ("llamad_client", *GATEWAY_CORE),
    "llamad_http.ollama": ("llamad_client", *GATEWAY_CORE),
    "llamad_http.openapi": ("llamad_client", *GATEWAY_CORE),
    "llamad_http.page": ("llamad_client", *GATEWAY_CORE),
    "llamad_http.openai": ("llamad_client", *GATEWAY_CORE),
    "llamad_http.llama_server": ("llamad_client", *GATEWAY_CORE),
    **dict.fromkeys(LEAVES, ()),
    "llamad.logs": ("llamad.printable",),
    "llamad.config": ("llamad.door.unix_socket", "llamad.ranges", "llamad.sampling", *LEAVES),
    "llamad.sampling": ("llamad.errors", "llamad.ranges"),
    "llamad.engine.bindings": (
        "llamad.errors",
        "llamad.gguf.value",
        "llamad.engine.info",
        "llamad.engine.run",
        "llamad.sampling",
        "llamad.engine.run",
    ),
    "llamad.engine.info": (),
    "llamad.engine.run": (),
    "llamad.engine.worker": ("llamad.engine.run", *LEAVES),
    "llamad.engine": ("llamad.text", *LEAVES),
    "llamad.gguf": ("llamad.engine.bindings", *LEAVES),
    "llamad.gguf.value": ("llamad.errors",),
    # load_tokenizer() reads the vocabulary of a file; the rest of the package knows no files
    "llamad.text": ("llamad.engine.bindings", "llamad.printable"),
    "llamad.text.": ("llamad.errors", "llamad.logs", "llamad.printable"),
    "llamad.text.template_program": (),
    "llamad.memory": ("llamad.engine.info", "llamad.engine.run", *LEAVES),
    "llamad.memory.demand": (
        "llamad.config",
        "llamad.door.capacity",
        "llamad.engine.bindings",
        "llamad.engine.info",
        "llamad.engine.run",
        "llamad.gguf.value",
        "llamad.memory",
        *LEAVES,
    ),
    "llamad.memory.guess_layer": (
        "llamad.config",
        "llamad.engine.bindings",
        "llamad.memory",
        *LEAVES,
    ),
    "llamad.store": ("llamad.engine.bindings", "llamad.gguf", *LEAVES),
    "llamad.jobs": ("llamad.sampling", *LEAVES),
    "llamad.schedule": (
        "llamad.engine.drafting",
        "llamad.engine.run",
        "llamad.engine.worker",
        "llamad.jobs",
        "llamad.sampling",
        "llamad.text",
        *LEAVES,
    ),
    "llamad.door": ("llamad.jobs", *LEAVES),
    "llamad.service": (
        "llamad.config",
        "llamad.engine",
        "llamad.gguf",
        "llamad.jobs",
        "llamad.memory",
        "llamad.sampling",
        "llamad.schedule",
        "llamad.store",
        "llamad.text",
        *LEAVES,
    ),
    "llamad.rpc": (
        "llamad.door",
        "llamad.jobs",
        "llamad.sampling",
        "llamad.schedule",
        "llamad.service",
        "llamad.store",
        "llamad_api",
        *LEAVES,
    ),
    "llamad.daemon": ("llamad",),
    "llamad.__main__": ("llamad", "llamad_tools"),
    "llamad_tools": (
        "llamad.config",
        "llamad.engine",
        "llamad.gguf",
        "llamad.memory",
        "llamad.sampling",
        "llamad.store",
        "llamad.text",
        *LEAVES,
    ),
}

# Libraries that belong to one part of the program.
LIBRARY_OWNERS: dict[str, tuple[str, ...]] = {
    "grpc": ("llamad.rpc", "llamad_client", "llamad_api"),
    "google": ("llamad.rpc", "llamad_client", "llamad_api"),
    "llamad._engine": ("llamad.engine.bindings",),
    "sentencepiece": ("llamad.text",),
    "regex": ("llamad.text",),
    "jinja2": ("llamad.text.template_program",),
    "sdnotify": ("llamad.systemd",),
    "prometheus_client": ("llamad.service.metrics",),
    "sqlite3": ("llamad.jobs.database", "llamad.jobs.store"),
    "numpy": ("llamad.engine.model", "llamad_tools"),
    "prompt_toolkit": ("llamactl.chat",),
    "rich": ("llamactl.chat",),
    "curses": ("llamactl.full_screen",),
    "uvicorn": ("llamad_http.server",),
    "h11": ("llamad_http.server",),
}

# The folders of native/src and whose headers each may include beside its own.
C_MAY_INCLUDE: dict[str, tuple[str, ...]] = {
    "base": (),
    "format": ("base",),
    "gguf": ("base", "format"),
    "kernels": ("base", "format"),
    "kernels/generic": ("base", "format", "kernels"),
    "kernels/avx2": ("base", "format", "kernels"),
    "kernels/neon": ("base", "format", "kernels"),
    "kernels/dotprod": ("base", "format", "kernels", "kernels/neon"),
    "quantize": ("base", "format"),
    "model": ("base", "format", "gguf", "kernels"),
    "engine": ("base", "format", "gguf", "kernels", "model"),
    "constraint": ("base",),
    "sample": ("base", "constraint"),
}
PUBLIC_HEADER = "llamad_engine.h"

LONG_FOR_A_REASON: dict[str, str] = {}  # path -> reason


# ---- Python -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: by whom, and where."""

    importer: str
    imported: str
    place: str


def module_name(path: Path) -> str:
    """Return the dotted name of a file below a source root; a package's is its own."""
    parts = path.relative_to(*path.parts[:1]).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_modules() -> dict[str, Path]:
    """Return our modules by name, generated ones included."""
    return {
        module_name(path): path
        for path in project_files()
        if path.suffix == ".py" and path.parts[0] in SOURCE_ROOTS and len(path.parts) > 2
    }


@cache
def imports() -> tuple[Import, ...]:
    """Return every import statement's modules, those inside functions too."""
    return tuple(_read_imports(python_modules()))


def _read_imports(modules: dict[str, Path]) -> Iterator[Import]:
    for importer, path in modules.items():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            place = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, alias.name, place)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{place}: relative import"
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield Import(importer, full if full in modules else str(node.module), place)


def is_within(module: str, package: str) -> bool:
    """Say whether a module is the package or lies in it. "a." means in it only."""
    return module == package or module.startswith(package.rstrip(".") + ".")


def row_of(module: str) -> str:
    """Return the row of MAY_IMPORT that a module falls under."""
    rows = [row for row in MAY_IMPORT if is_within(module, row)]
    assert rows, f"{module} has no row in MAY_IMPORT"
    return max(rows, key=len)


def test_modules_import_only_what_their_row_allows() -> None:
    wrong = []
    for item in imports():
        if not any(is_within(item.imported, package) for package in OUR_PACKAGES):
            continue
        if item.imported == "llamad" and item.importer.split(".")[0] in ("llamad", "llamad_tools"):
            continue  # its version
        if item.imported == "llamad._engine":
            continue  # in LIBRARY_OWNERS
        row = row_of(item.importer)
        allowed = (row.rstrip("."), *MAY_IMPORT[row])
        if not any(is_within(item.imported, package) for package in allowed):
            wrong.append(f"{item.place}: {item.importer} imports {item.imported}")
    assert wrong == []


@pytest.mark.parametrize("library", LIBRARY_OWNERS)
def test_a_library_is_imported_only_by_its_owners(library: str) -> None:
    owners = LIBRARY_OWNERS[library]
    wrong = [
        f"{item.place}: {item.importer} imports {item.imported}"
        for item in imports()
        if is_within(item.imported, library)
        and not any(is_within(item.importer, owner) for owner in owners)
    ]
    assert wrong == []


def test_the_tables_name_modules_that_exist() -> None:
    rows = {row.rstrip(".") for row in MAY_IMPORT}
    assert rows - set(python_modules()) == set()


# ---- C ----------------------------------------------------------------------------------------


def engine_sources() -> list[Path]:
    """Return the C files of the engine, relative to native/src."""
    source = ROOT / "native" / "src"
    return sorted(path.relative_to(source) for path in source.rglob("*.[ch]"))


def test_c_files_include_only_headers_of_the_folders_that_theirs_may() -> None:
    wrong = []
    for path in engine_sources():
        folder = str(path.parent)
        text = (ROOT / "native" / "src" / path).read_text(encoding="utf-8")
        for header in re.findall(r'^\s*#\s*include "([^"]+)"', text, re.MULTILINE):
            allowed = (folder, *C_MAY_INCLUDE[folder])
            if header != PUBLIC_HEADER and str(Path(header).parent) not in allowed:
                wrong.append(f"{path} includes {header}")
    assert wrong == []


def test_the_library_prints_and_exits_nowhere() -> None:
    calls = re.compile(r"\b(?:printf|fprintf|puts|putchar|perror|exit|_exit|abort)\s*\(")
    wrong = [
        f"{path}: {line.strip()}"
        for path in engine_sources()
        for line in (ROOT / "native" / "src" / path).read_text(encoding="utf-8").splitlines()
        if calls.search(re.sub(r"/\*.*?\*/|//.*|\"[^\"]*\"", "", line))
    ]
    assert wrong == []


MOST_PARAMETERS = 8  # of a C function; more are a struct
C_FUNCTION = re.compile(
    r"^(?:[A-Za-z_][\w \*]*?)\b(\w+)\(([^(){};]*(?:\([^()]*\)[^(){};]*)*)\)\s*[{;]", re.MULTILINE
)
INEXACT = re.compile(  # of libm, by IEEE 754
    r"\b((?:a?(?:sin|cos|tan)h?|sincos|exp[2m]?1?|log(?:2|10|1p)?|pow|cbrt|hypot|erfc?)[fl]?)\("
)


def read_c(path: Path) -> str:
    """Return the text of a C file of the engine without its comments."""
    text = (ROOT / "native" / "src" / path).read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def test_c_functions_take_few_parameters() -> None:
    many = [
        f"{path}: {name}"
        for path in engine_sources()
        for name, parameters in C_FUNCTION.findall(read_c(path))
        if re.sub(r"\([^()]*\)", "", parameters).count(",") >= MOST_PARAMETERS
    ]
    assert many == []


def test_functions_whose_bits_differ_between_machines_are_our_own() -> None:
    wrong = [
        f"{path}: {name}" for path in engine_sources() for name in INEXACT.findall(read_c(path))
    ]
    assert wrong == [], "base/elementary.h and base/vecmath.h have them"


# ---- all files --------------------------------------------------------------------------------


def written_by_hand(path: Path) -> bool:
    return path.suffix in {".py", ".c", ".h", ".proto", ".pyi"} and "_pb2" not in path.name


def test_no_file_is_long_without_a_reason() -> None:
    lengths = {
        str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in project_files()
        if written_by_hand(path)
    }
    too_long = {path for path, lines in lengths.items() if lines > MAX_LINES}
    assert too_long == set(LONG_FOR_A_REASON)


def test_every_source_file_says_what_it_owns() -> None:
    silent = []
    for path in project_files():
        if not written_by_hand(path) or path.suffix not in {".py", ".c", ".h"}:
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.suffix == ".py":
            says = not text.strip() or ast.get_docstring(ast.parse(text)) is not None
        else:
            says = text.startswith("/*")
        silent += [] if says else [str(path)]
    assert silent == []


def test_no_file_names_a_developers_machine() -> None:
    # Absolute paths of a home or a checkout; built from parts, so that this file has none.
    homes = "|".join(("work", "root", "home/[a-z]+", "tmp/w"))
    pattern = re.compile(rf"(?<![\w.~$}}-])/(?:{homes})/".encode())
    named = [str(p) for p in project_files() if pattern.search((ROOT / p).read_bytes())]
    assert named == []
