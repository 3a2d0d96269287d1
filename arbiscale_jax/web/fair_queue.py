"""Queues the work of several clients so that none waits for all the work of another."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Lanes(Generic[Item]):
    """Holds what one client waits for; what is urgent goes first."""

    def __init__(self):
        self.urgent: deque[Item] = deque()
        self.rest: deque[Item] = deque()

    def __iter__(self) -> Iterator[Item]:
        yield from self.urgent
        yield from self.rest

    def pop(self) -> Item:
        return (self.urgent or self.rest).popleft()


class FairQueue(Generic[Item]):
    """Hands out one item of each client in turn (round-robin); items of one client come in the order of their arrival.

    It holds no lock: whoever shares it between threads locks it.
    """

    def __init__(self):
        self._clients: OrderedDict[Hashable, _Lanes[Item]] = OrderedDict()  # the client whose turn is next comes first

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Item]:
        """Yields what waits, client by client."""
        for lanes in self._clients.values():
            yield from lanes

    def add(self, client: Hashable, item: Item, *, urgent: bool = False) -> None:
        """Appends an item; what is urgent is handed out before the client's other items, and not before others'."""
        lanes = self._clients.setdefault(client, _Lanes())
        (lanes.urgent if urgent else lanes.rest).append(item)

    def put_back(self, client: Hashable, item: Item, *, urgent: bool = False) -> None:
        """Makes an item, whose turn has ended before its work, the next one of its client."""
        lanes = self._clients.setdefault(client, _Lanes())
        (lanes.urgent if urgent else lanes.rest).appendleft(item)

    def take(self) -> tuple[Hashable, Item] | None:
        """Removes and returns (client, item) of the client whose turn it is, or None if nothing waits."""
        if not self._clients:
            return None
        client, lanes = self._clients.popitem(last=False)
        item = lanes.pop()
        if lanes.urgent or lanes.rest:
            self._clients[client] = lanes  # at the end
        return client, item

    def remove(self, client: Hashable, item: Item) -> bool:
        """Removes an item, and tells whether it was still waiting."""
        lanes = self._clients.get(client)
        for lane in (lanes.urgent, lanes.rest) if lanes else ():
            if item in lane:
                lane.remove(item)
                if lanes and not (lanes.urgent or lanes.rest):
                    del self._clients[client]
                return True
        return False

    def waiting(self, client: Hashable) -> list[Item]:
        """Returns the items of a client in the order in which it gets them."""
        return list(self._clients.get(client, ()))

    def ahead(self, client: Hashable, item: Item) -> int:
        """Returns how many items are handed out before one that waits, if no more arrive; 0 if it does not wait."""
        mine = self.waiting(client)
        if item not in mine:
            return 0
        rounds, order = mine.index(item), list(self._clients)
        before = set(order[: order.index(client)])
        return rounds + sum(
            min(len(list(lanes)), rounds + (other in before))
            for other, lanes in self._clients.items()
            if other != client
        )
