"""gRPC: the server, the services and the conversion between protobuf and the domain."""

import os

# gRPC's C core writes lines of its own to stderr, for some of them a client decides how many.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
