"""Controls: what attention is compared against."""
