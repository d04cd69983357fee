"""Executors that variants share."""
