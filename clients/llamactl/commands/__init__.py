"""One module a command: ``add_parser`` declares it, ``run`` does it and returns the exit code."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
