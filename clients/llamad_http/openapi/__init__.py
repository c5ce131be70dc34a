"""The description of all addresses for programs, ``/openapi.json`` (OpenAPI 3.1)."""
