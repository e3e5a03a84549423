"""How long what the user waits for takes: `make bench`."""
