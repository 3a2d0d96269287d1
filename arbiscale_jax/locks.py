"""Locks on files that the kernel frees when their holder dies."""

import errno
import fcntl
import logging

UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

logger = logging.getLogger(__name__)


def take(file, *, wait: bool = False) -> bool:
    """Locks an open file, after the end of another process that holds it where `wait`; closing it lets go.

    On a file system without locks, as some of clusters, it warns and locks nothing.
    Returns: whether the file may be used; False where another process holds it.
    Raises: OSError for any other failure.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in UNSUPPORTED:
            raise
        logger.warning("%s cannot be locked (%s); let no second process write there.", file.name, e.strerror)
    return True
