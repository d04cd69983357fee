"""Synthetic sequences in which the distance that the answer must travel is an option."""
