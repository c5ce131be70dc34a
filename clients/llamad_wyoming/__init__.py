"""llamad-wyoming: answers the transcripts of voice satellites, one more client of the service.

It speaks the Wyoming protocol (https://github.com/OHF-Voice/wyoming), as the service that comes
behind speech to text: a ``transcript`` comes in, text goes out while the model draws it.
"""

__version__ = "0.1.0"
