"""Build the C engine with the package; everything declarative stands in pyproject.toml.

setuptools that cannot see cffi only warns and builds a package without the engine, so the build
fails here when no extension module came out of ``cffi_modules``.
"""

from setuptools import Distribution, setup


class EngineDistribution(Distribution):
    """A distribution that refuses to be built without its extension module."""

    def run_commands(self) -> None:
        """Run the commands, or stop when cffi did not register the engine."""
        if not self.ext_modules:
            raise SystemExit(
                "setup.py: cffi is missing, so the engine would be: install cffi>=1.15"
            )
        super().run_commands()


setup(distclass=EngineDistribution, cffi_modules=["native/ffi_build.py:ffi"])
