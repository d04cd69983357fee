"""Where a cell's process runs. One engine so far: this machine."""
