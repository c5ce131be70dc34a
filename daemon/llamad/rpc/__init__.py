"""gRPC: the server, the services and the conversion between protobuf and the domain."""
