"""llamad: the service that keeps a language model resident, and the tools that work on model files."""

__version__ = "0.1.0"
