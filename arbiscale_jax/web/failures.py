"""Defines what goes wrong in the server besides a mistake in what was asked for."""


class Missing(LookupError):
    """Says in one sentence what is not there (status 404)."""


class TooMany(RuntimeError):
    """Says in one sentence which limit is reached (status 429)."""
