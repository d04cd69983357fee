"""Low-rank attention: keys and values summed up before a query asks."""
