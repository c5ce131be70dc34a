"""Jobs: requests, records, the book of all jobs, and the events their clients read."""
