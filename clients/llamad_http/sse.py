"""Comments of server-sent events: every reader skips them, and a person who looks sees the state.

They keep a stream alive while a job waits or a long prompt is read, so that nothing between the
gateway and the program takes it for dead (WHATWG HTML, section 9.2.6: a line that begins with a
colon).
"""

from llamad_client import Event, PrefillProgress, Queued


def comment(event: Event | None = None) -> bytes:
    """Return what an event that has no other shape becomes: where the job is, or just a sign."""
    match event:
        case Queued() if event.queue_position > 0:
            return b": queue position %d\n\n" % event.queue_position
        case PrefillProgress():
            counts = (event.processed_tokens, event.prompt_tokens)
            return b": read %d of %d tokens\n\n" % counts
    return b": ping\n\n"
