"""llamad: the service that keeps a language model resident, and the tools for model files."""

__version__ = "0.1.0"
