"""How the next token is chosen, as plain values: no gRPC, no C."""
