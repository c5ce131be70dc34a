"""Anthropic's API: translations from and to its JSON, as its reference describes it."""
