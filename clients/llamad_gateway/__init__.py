"""What the gateways have in common: programs that let others talk to the service.

``llamad-http`` and ``llamad-wyoming`` differ in the protocol that they speak. How a configuration
is read, where they listen, how many may connect and how they write to the journal is the same, and
stands here.
"""
