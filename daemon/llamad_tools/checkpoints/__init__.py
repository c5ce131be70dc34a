"""Checkpoints of others into GGUF: what ``llamad convert`` reads, and how it streams it out.

A reader (``llama_folder``, ``huggingface_folder``, ``legacy_file``) turns a checkpoint into a
``Checkpoint``: metadata and tensors under their GGUF names, whose rows are read in pieces.
``conversion`` writes one, and holds a few pieces in memory at a time. No torch, nothing executed.
"""
