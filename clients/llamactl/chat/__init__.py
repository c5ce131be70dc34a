"""``llamactl chat``: the conversation on a terminal, and the one through a pipe.

``conversation`` has the messages, ``commands`` what begins with a slash; both know no terminal.
``prompt`` reads, ``screen`` writes: they, and what they use, import prompt_toolkit and rich, which
take time, so only ``terminal`` imports them, and the command does that only on a terminal.
"""
