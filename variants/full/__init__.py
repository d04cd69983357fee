"""Full attention: every query sees every key."""
