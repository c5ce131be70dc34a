"""Define the cffi module ``llamad._engine``: API mode, out of line, from the public headers.

The cdef is their parts between "cffi: begin" and "cffi: end", so the C compiler checks every
signature and there is one truth. ``setup.py`` names this file in ``cffi_modules``.
"""

import re
from pathlib import Path

import cffi

NATIVE = Path(__file__).resolve().parent
ROOT = NATIVE.parent
HEADERS = [NATIVE / "include" / f"llamad_{name}.h" for name in ("engine", "sampling")]

COMPILE_ARGS = [
    "-std=c11", "-O3", "-g", "-Wall", "-Wextra", "-Wvla", "-fvisibility=hidden",
    "-ffp-contract=off", "-D_GNU_SOURCE",
]  # fmt: skip


def read_version() -> str:
    """Return the project's version from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("pyproject.toml has no version")
    return match.group(1)


def read_cdef() -> str:
    """Return the declarations between the two markers of each public header."""
    texts = [header.read_text(encoding="utf-8") for header in HEADERS]
    return "".join(
        text[text.index("/* cffi: begin */") : text.index("/* cffi: end */")] for text in texts
    )


ffi = cffi.FFI()
ffi.cdef(read_cdef())
ffi.set_source(
    "llamad._engine",
    '#include "llamad_engine.h"\n',
    sources=[str(p.relative_to(ROOT)) for p in sorted((NATIVE / "src").rglob("*.c"))],
    depends=[str(p.relative_to(ROOT)) for p in sorted(NATIVE.rglob("*.h"))],
    include_dirs=["native/include", "native/src"],
    extra_compile_args=[*COMPILE_ARGS, f'-DLLD_BUILD="{read_version()}"'],
    libraries=["m", "pthread"],
)
