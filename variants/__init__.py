"""The attention variants: what is compared. This is their contents page, one line a variant."""
