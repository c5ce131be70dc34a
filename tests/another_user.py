"""Become another user in a child process of a test, with everything imported that will be needed.

A clone in root's home, and the virtual environment in it, are closed to that user: what Python
would import later must be imported before. Owns knowing what that is.
"""

import importlib
import os
import pkgutil
from collections.abc import Sequence

import grpc

NOBODY = 65534
_OURS = ("llamactl", "llamad_client", "llamad_api")


def import_everything() -> None:
    """Import our packages whole, and what grpc imports when it opens its first channel."""
    for name in _OURS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    grpc.insecure_channel("unix:/nonexistent").close()
    importlib.import_module("grpc.aio")


def become_another_user(groups: Sequence[int] = ()) -> None:
    """Become the user nobody, for good. groups: supplementary ones. Needs root; else does nothing.

    Raises OSError when root may not.
    """
    import_everything()
    if os.geteuid() == 0:
        os.setgroups(groups)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
