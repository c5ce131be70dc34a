"""The memory of this machine: what is available, and the plan that divides it. Bytes."""
