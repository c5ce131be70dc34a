"""Who may come in: the socket, the peer proxy, the rights and the limits of callers."""
