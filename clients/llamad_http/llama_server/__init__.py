"""llama-server's own addresses: translations from and to its JSON, as its README describes it."""
