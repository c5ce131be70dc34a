"""Standard gRPC services (health, reflection): made from the .proto files here by `make proto`."""
