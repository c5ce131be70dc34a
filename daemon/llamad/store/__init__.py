"""Model files in the model directory: which there are, and how one is transferred into it."""
