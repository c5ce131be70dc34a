"""Look-aheads at the beginning of a pattern, as patterns of their own: ``^(?!x)(?=.*[0-9])...``.

A text matches when it matches what is left, each that is wanted, and none that is not. Look-aheads
elsewhere are regex.py's to refuse.
"""

from collections.abc import Iterator


def without_look_aheads(pattern: str) -> tuple[str, list[tuple[str, bool]]]:
    """Return what is left of a pattern, and those that a text must match (True) or must not."""
    found: list[tuple[str, bool]] = []
    at = 1
    while pattern.startswith("^") and pattern.startswith(("(?=", "(?!"), at):
        end = next((i for i, _, depth in _signs(pattern, at) if depth == 0), None)
        if end is None or pattern[end + 1 : end + 2] in ("*", "+", "?", "{"):
            return pattern, []
        found.append((_at_beginning(pattern[at + 3 : end]), pattern[at + 2] == "="))
        at = end + 1
    if not found or _has_alternatives(pattern[at:]):
        return pattern, []
    return "^" + pattern[at:], found


def _at_beginning(inner: str) -> str:
    if _has_alternatives(inner):
        return f"^(?:{inner})"
    return inner if inner.startswith("^") else "^" + inner


def _has_alternatives(pattern: str) -> bool:
    return any(sign == "|" and depth == 0 for _, sign, depth in _signs(pattern, 0))


def _signs(pattern: str, start: int) -> Iterator[tuple[int, str, int]]:
    """Yield where parentheses and bars stand that are no characters, and how deep behind each."""
    depth, in_class, escaped = 0, False, False
    for i in range(start, len(pattern)):
        sign = pattern[i]
        if escaped or sign == "\\":
            escaped = not escaped
        elif in_class:
            in_class = sign != "]"
        elif sign == "[":
            in_class = True
        elif sign in "()|":
            depth += {"(": 1, ")": -1, "|": 0}[sign]
            yield i, sign, depth
