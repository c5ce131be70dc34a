"""Smaller weights: which type each tensor gets, and the rewriting of a file."""
