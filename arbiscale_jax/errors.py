"""Defines the exceptions that report a user's mistakes."""


class UserError(ValueError):
    """Reports a mistake that the user can correct.

    The message is one sentence that says what is wrong, which file or flag is concerned, and what to do. A command line
    prints it and exits with code 2; in Python it is a ValueError.
    """


class MissingPredecessor(UserError):
    """Reports that a stage was started before the stage that it builds on.

    The command line, which knows the configuration files, adds the name of the one that trains the missing stage.
    """

    def __init__(self, message: str, names: tuple[str, ...]):
        """Stores the message and the names of the runs that would help.

        Args:
          message: one sentence.
          names: names of the runs that could serve as the predecessor, the usual one first.
        """
        super().__init__(message)
        self.names = names
