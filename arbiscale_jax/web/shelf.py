"""Keeps what was used last, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Shelf(Generic[Item]):
    """Holds items by their keys, and drops those that were used longest ago; threads may share it.

    Args:
      most: the bytes that all items may have together; one item is kept in any case.
      weigh: returns the bytes of an item, which may change while it is held.
    """

    def __init__(self, most: int, weigh: Callable[[Item], int]):
        self.most, self._weigh = most, weigh
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Item | None:
        """Returns an item, which then is the one that was used last, or None."""
        with self._lock:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key]

    def put(self, key: Hashable, item: Item) -> None:
        """Holds an item in place of the one of that key, and drops others that no longer fit."""
        with self._lock:
            self._items[key] = item
            self._items.move_to_end(key)
            total = sum(map(self._weigh, self._items.values()))
            while total > self.most and len(self._items) > 1:
                total -= self._weigh(self._items.popitem(last=False)[1])

    def drop(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drops the items whose keys are wanted."""
        with self._lock:
            for key in [key for key in self._items if wanted(key)]:
                del self._items[key]

    def nbytes(self) -> int:
        """Returns the bytes of all items."""
        with self._lock:
            return sum(map(self._weigh, self._items.values()))
