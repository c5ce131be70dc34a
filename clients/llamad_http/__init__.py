"""llamad-http: an HTTP gateway, one more client of the service.

Programs that speak OpenAI's, Ollama's or llama-server's HTTP are answered by the service llamad.
Each API has a folder with pure translations: from its JSON to a ``CompletionRequest``, and from
the service's events to its JSON. No API imports another; everything that is not about their JSON
is beside the folders, and knows none of them but in ``routes.py``.
"""

__version__ = "0.1.0"
