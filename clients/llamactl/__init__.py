"""llamactl: everything that talks to the llamad service from a shell."""
