"""Blocked attention: a query sees a choice of whole blocks."""
