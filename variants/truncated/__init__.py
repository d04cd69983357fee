"""Truncated attention: a query sees the keys near it."""
