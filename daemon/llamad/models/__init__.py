"""Models: which ones there are, and how one is loaded."""
