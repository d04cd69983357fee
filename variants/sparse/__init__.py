"""Sparse attention: a query sees a choice of single keys."""
