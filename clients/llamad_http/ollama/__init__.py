"""Ollama's API: translations from and to its JSON, as its documentation describes it."""
