"""From waiting jobs to steps of the engine; lives with one loaded model, plain values only."""
