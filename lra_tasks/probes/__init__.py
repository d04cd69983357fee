"""Synthetic sequences with an option for the distance an answer must travel, or for what it must carry."""
