"""The subcommands of ``llamad`` that work on files: arguments, output, and nothing else."""
