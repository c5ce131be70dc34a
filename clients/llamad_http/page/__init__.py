"""The gateway's own page at ``/``: its files, and whether a request wants it."""
