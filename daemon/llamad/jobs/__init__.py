"""Jobs: requests, their queue, the scheduler that composes steps, and their output streams."""
