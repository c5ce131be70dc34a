"""llamactl: everything that talks to the llamad service from a shell."""

import os

# gRPC's C core writes notes of its own to stderr, between the answers and the errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
