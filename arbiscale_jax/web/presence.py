"""Knows which pages are open, so that the work of a page that was closed ends."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

BEAT_SECONDS = 15.0  # between the lines that keep a connection alive, and by which a broken one is found out
CHECK_SECONDS = 0.5  # between two looks at whether the server is about to stop


class Presence:
    """Counts the connections of pages; it is used in the event loop alone.

    Args:
      leave: is called with a client whose last connection ended and was not renewed.
      seconds: how long it may take to renew it, as a page that is loaded again does.
    """

    def __init__(self, leave: Callable[[str], object], seconds: float):
        self._leave, self._seconds = leave, seconds
        self._open: Counter[str] = Counter()
        self._leaving: dict[str, asyncio.TimerHandle] = {}

    def enter(self, client: str) -> None:
        """Counts one more connection."""
        self._open[client] += 1
        if timer := self._leaving.pop(client, None):
            timer.cancel()

    def exit(self, client: str) -> None:
        """Counts one connection less."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
            loop = asyncio.get_running_loop()
            self._leaving[client] = loop.call_later(self._seconds, self._gone, client)

    def _gone(self, client: str) -> None:
        self._leaving.pop(client, None)
        asyncio.get_running_loop().run_in_executor(None, self._leave, client)

    async def stay(self, client: str, closing: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yields empty lines while a connection is open and the server is not about to stop."""
        self.enter(client)
        try:
            waited = BEAT_SECONDS
            while not closing():
                if waited >= BEAT_SECONDS:
                    yield b"\n"
                    waited = 0.0
                await asyncio.sleep(CHECK_SECONDS)
                waited += CHECK_SECONDS
        finally:
            self.exit(client)
