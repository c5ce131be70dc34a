"""Calls of tools: how each family of models writes them, and how they are read back.

``formats.py`` has the table, one row a format; a reader (``json_calls.py``, ``tagged_calls.py``,
``python_calls.py``, ``gemma_calls.py``) knows one notation; ``splitter.py`` cuts calls out of text
that arrives in pieces; ``conversation.py`` gives tools, calls and results to a chat template.
"""
