"""Locks files so that the kernel frees the lock when the process that holds it dies."""

import errno
import fcntl
import logging

UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

logger = logging.getLogger(__name__)


def take(file, *, wait: bool = False) -> bool:
    """Locks an open file; closing the file releases the lock.

    On a file system without locks, as some clusters have, it logs a warning and locks nothing.

    Args:
      file: the open file.
      wait: whether to wait until another process that holds the lock has released it.

    Returns:
      True if the file may be used, False if another process holds it.

    Raises:
      OSError: if locking fails for any other reason.
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
