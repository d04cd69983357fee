"""What it looks like: frames, tables, plots and the page of a run. Imports results alone, and no torch."""
