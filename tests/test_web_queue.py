"""The web server's queue, worker, shelves and presence: whose turn it is, and what ends when."""

import asyncio
import random
import threading

import pytest

from arbiscale_jax.web import presence
from arbiscale_jax.web.fair_queue import FairQueue
from arbiscale_jax.web.presence import Presence
from arbiscale_jax.web.shelf import Shelf
from arbiscale_jax.web.worker import Cancelled, Task, Worker

SECONDS = 60  # far more than anything takes


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    assert worker.close(SECONDS)


@pytest.fixture
def gate(worker):
    """Keeps the worker busy until it is set."""
    began, over = threading.Event(), threading.Event()
    worker.submit(Task("first", lambda task: waiting(began, over)))
    assert began.wait(SECONDS)
    yield over
    over.set()


def waiting(began, over):
    began.set()
    assert over.wait(SECONDS)
    return "waited"
    yield


def drain(queue):
    found = []
    while one := queue.take():
        found.append(one)
    return found


def test_clients_take_turns_whatever_they_have_queued():
    queue = FairQueue()
    for i in range(3):
        queue.add("a", f"a{i}")
    queue.add("b", "b0")
    queue.add("c", "c0")
    queue.add("b", "b1")
    assert len(queue) == 6
    assert [item for _, item in drain(queue)] == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_what_is_urgent_comes_first_for_its_client_alone():
    queue = FairQueue()
    for name in ("a0", "a1", "b0"):
        queue.add(name[0], name)
    queue.add("b", "b!", urgent=True)
    assert [item for _, item in drain(queue)] == ["a0", "b!", "a1", "b0"]


def test_work_that_is_put_back_goes_on_when_its_client_has_its_turn():
    queue, order = FairQueue(), []
    for name in ("a0", "a1", "b0"):
        queue.add(name[0], name)
    left = {"a0": 3, "a1": 1, "b0": 2}
    while one := queue.take():
        client, item = one
        order.append(item)
        left[item] -= 1
        if left[item]:
            queue.put_back(client, item)
    assert order == ["a0", "b0", "a0", "b0", "a0", "a1"]


def test_a_newcomer_waits_for_one_item_of_each_other_client():
    queue = FairQueue()
    for i in range(100):
        queue.add("greedy", ("greedy", i))
    queue.take()
    queue.add("newcomer", "hello")
    assert queue.ahead("newcomer", "hello") == 1
    assert [queue.take(), queue.take()] == [("greedy", ("greedy", 1)), ("newcomer", "hello")]


@pytest.mark.parametrize("seed", range(4))
def test_ahead_counts_what_is_handed_out_before(seed):
    rng, queue, known = random.Random(seed), FairQueue(), []
    for i in range(30):
        client, urgent = rng.choice("abcd"), rng.random() < 0.3
        queue.add(client, i, urgent=urgent)
        known.append((client, i))
    for _ in range(5):
        known.remove(queue.take())
    ahead = {item: queue.ahead(client, item) for client, item in known}
    assert ahead == {item: n for n, (_, item) in enumerate(drain(queue))}
    assert queue.ahead("a", "unknown") == 0


def test_items_are_removed_once():
    queue = FairQueue()
    queue.add("a", 1)
    queue.add("a", 2, urgent=True)
    assert queue.waiting("a") == [2, 1] and queue.waiting("b") == []
    assert queue.remove("a", 1) and not queue.remove("a", 1) and not queue.remove("b", 2)
    assert queue.remove("a", 2) and queue.take() is None


def test_the_worker_does_steps_of_clients_in_turn(worker, gate):
    order = []

    def steps(name, count):
        def make(task):
            for i in range(count):
                order.append((name, i))
                yield
            return name

        return make

    tasks = [worker.submit(Task(name, steps(name, count))) for name, count in (("a", 3), ("b", 1), ("c", 2))]
    assert worker.number(urgent=False) == 3 and worker.ahead(tasks[2]) == 2
    gate.set()
    assert [task.future.result(SECONDS) for task in tasks] == ["a", "b", "c"]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("a", 2)]


def test_a_task_that_waits_is_cancelled_at_once(worker, gate):
    task = worker.submit(Task("a", lambda task: pytest.fail("it was not to begin")))
    worker.cancel(task)
    with pytest.raises(Cancelled):
        task.future.result(0)
    assert worker.number(urgent=False) == 0


def test_a_running_task_is_cancelled_where_it_looks(worker):
    began, over, closed = threading.Event(), threading.Event(), []

    def steps(task):
        began.set()
        assert over.wait(SECONDS)
        try:
            task.check()
        finally:
            closed.append(True)
        yield

    task = worker.submit(Task("a", steps))
    assert began.wait(SECONDS)
    worker.cancel(task)
    assert not task.future.done()
    over.set()
    with pytest.raises(Cancelled):
        task.future.result(SECONDS)
    assert closed == [True]


def test_a_task_between_two_steps_is_closed_when_it_is_cancelled(worker):
    closed, began, over = [], threading.Event(), threading.Event()

    def steps(task):
        try:
            while True:
                yield
        finally:
            closed.append(True)

    task = worker.submit(Task("a", steps))
    blocked = worker.submit(Task("b", lambda task: waiting(began, over)))
    assert began.wait(SECONDS)
    worker.cancel(task)
    assert closed == [True]
    over.set()
    assert blocked.future.result(SECONDS) == "waited"


def test_an_error_ends_its_task_and_no_other(worker):
    def fails(task):
        yield
        raise ZeroDivisionError("mine")

    def works(task):
        yield
        return 7

    bad, good = worker.submit(Task("a", fails)), worker.submit(Task("a", works))
    with pytest.raises(ZeroDivisionError, match="mine"):
        bad.future.result(SECONDS)
    assert good.future.result(SECONDS) == 7


def test_closing_cancels_what_waits_and_what_comes():
    worker, began, over = Worker(), threading.Event(), threading.Event()
    running = worker.submit(Task("a", lambda task: waiting(began, over)))
    assert began.wait(SECONDS)
    task = worker.submit(Task("b", lambda task: pytest.fail("it was not to begin")))
    assert not worker.close(0)
    with pytest.raises(Cancelled):
        task.future.result(0)
    with pytest.raises(Cancelled):
        worker.submit(Task("c", lambda task: pytest.fail("it was not to begin"))).future.result(0)
    over.set()
    assert running.future.result(SECONDS) == "waited" and worker.close(SECONDS)


def test_shelves_drop_what_was_used_longest_ago():
    shelf = Shelf(10, len)
    for name in "abc":
        shelf.put(name, name * 3)
    assert shelf.get("a") == "aaa" and shelf.nbytes() == 9
    shelf.put("d", "dddd")
    assert [shelf.get(name) for name in "abcd"] == ["aaa", None, "ccc", "dddd"]
    shelf.put("huge", "x" * 50)
    assert shelf.nbytes() == 50 and shelf.get("d") is None
    shelf.drop(lambda key: key == "huge")
    assert shelf.nbytes() == 0


def test_a_page_has_left_when_no_connection_is_renewed(monkeypatch):
    monkeypatch.setattr(presence, "CHECK_SECONDS", 0.0)
    left, stops = [], [False]

    async def check():
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        there = Presence(lambda client: (left.append(client), loop.call_soon_threadsafe(gone.set)), 0.0)
        streams = [there.stay("page", lambda: stops[0]) for _ in range(2)]
        assert [await anext(stream) for stream in streams] == [b"\n", b"\n"]
        await streams[0].aclose()
        await asyncio.sleep(0)
        assert left == []
        await streams[1].aclose()
        again = there.stay("page", lambda: stops[0])  # as a page that is loaded again
        await anext(again)
        await asyncio.sleep(0)
        assert left == []
        await again.aclose()
        await asyncio.wait_for(gone.wait(), SECONDS)
        assert left == ["page"]
        stops[0] = True
        assert [line async for line in there.stay("other", lambda: stops[0])] == []

    asyncio.run(check())
