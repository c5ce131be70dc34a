"""What works on model files and never runs in the service: one module for each subcommand."""
