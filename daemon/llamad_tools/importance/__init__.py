"""Importance matrices: measured over a text, written and read as GGUF files."""
