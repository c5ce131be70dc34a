"""The service's life: what is loaded, what is ordered, and what clients hear of it; no gRPC."""
