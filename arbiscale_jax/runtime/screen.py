"""Makes names of files and other foreign text safe to print."""


def printable(text: object) -> str:
    """Returns str(text) with an escape in place of each character that does not show.

    A file name may hold newlines, the escape sequences of terminals, and bytes that are no UTF-8, which Python holds as
    lone surrogates and can encode for no terminal.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
