"""The generated gRPC interface, shared by the service and its clients."""
