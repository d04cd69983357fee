"""How it is measured: matrices, protocols, the runner and the command line."""
