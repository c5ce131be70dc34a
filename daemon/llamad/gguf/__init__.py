"""The GGUF container: metadata values, files in several parts, and a streaming writer."""
