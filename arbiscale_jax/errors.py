"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """A mistake that the user can mend: one sentence with what was wrong, which file or flag, and what to do.

    Command lines print it and exit with 2; from Python it is a ValueError.
    """
