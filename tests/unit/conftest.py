"""Settings of the property tests of these folders: the same examples each time, no time limits."""

from hypothesis import settings

settings.register_profile("llamad", deadline=None, derandomize=True)
settings.load_profile("llamad")
