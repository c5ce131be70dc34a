"""Names of users, for messages and for the journal."""

import functools
import pwd


@functools.lru_cache(maxsize=256)
def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
