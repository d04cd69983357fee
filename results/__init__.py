"""What came out: cells, records, and the folder of a run. Imports nothing else of attnbench, and no torch."""
