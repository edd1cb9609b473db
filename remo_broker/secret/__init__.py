"""`remo-secret`: a project's socket as a command. Needs Python and its standard library, nothing else."""
