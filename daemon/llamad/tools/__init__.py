"""The offline half of `llamad`: one module for each subcommand that works on model files."""
