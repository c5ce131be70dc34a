"""Build the C engine with the package; everything declarative stands in pyproject.toml.

setuptools that cannot see cffi only warns and builds a package without the engine, so the build
fails here when no extension module came out of ``cffi_modules``. With ``--quiet`` each file is one
short line, otherwise setuptools prints the compiler's commands.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

# What the generated C file is made from; it has a new date at each build.
GENERATED_FROM = ("native/ffi_build.py", "pyproject.toml", "setup.py")


class EngineBuild(build_ext):
    """Compile as many files at a time as there are processors; nothing when nothing changed."""

    def run(self) -> None:
        """Build, unless the module in the source tree is newer than all that it is made from."""
        if not (self.inplace and all(map(self._is_current, self.extensions))):
            super().run()

    def build_extensions(self) -> None:
        """Let the compiler object take the files of an extension in parallel."""
        compile_files = self.compiler.compile

        def compile_one(source: str, named: dict[str, Any]) -> list[str]:
            if not self.distribution.verbose:
                print(f"  CC {source}", flush=True)
            return list(compile_files([source], **named))

        def compile_all(sources: list[str], **named: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                objects = pool.map(lambda source: compile_one(source, named), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()

    def _is_current(self, extension: Any) -> bool:
        module = Path(self.get_ext_fullpath(extension.name))
        names = [*extension.sources[1:], *extension.depends, *GENERATED_FROM]
        newest = max(Path(name).stat().st_mtime for name in names)
        return module.exists() and module.stat().st_mtime >= newest


class EngineDistribution(Distribution):
    """A distribution that refuses to be built without its extension module."""

    def run_commands(self) -> None:
        """Run the commands, or stop when cffi did not register the engine."""
        if not self.ext_modules:
            raise SystemExit(
                "setup.py: cffi is missing, so the engine would be: install cffi>=1.15"
            )
        super().run_commands()


setup(
    distclass=EngineDistribution,
    cmdclass={"build_ext": EngineBuild},
    cffi_modules=["native/ffi_build.py:ffi"],
)
