"""Reads and writes models on disk: it finds them, checks that weights and networks fit, and exports them."""
