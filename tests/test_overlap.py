"""Tests of reading and writing in threads: order, errors from either side, and no thread that waits for ever."""

import threading

import numpy as np
import pytest

from arbiscale_jax.cli import overlap
from arbiscale_jax.errors import UserError

SECONDS = 30  # after which a thread that waits for another has waited in vain


def bands(number, failing=None):
    """Yields rows with the values 0 .. number - 1, and then raises `failing`."""
    for value in range(number):
        yield np.full((1, 2, 3), value, np.uint8)
    if failing:
        raise failing


def collect(into):
    """Returns a writer that appends the first value of each band to a list."""
    return lambda rows: into.extend(int(some[0, 0, 0]) for some in rows)


def test_the_next_item_is_read_while_one_is_used_and_no_further_one():
    began = [threading.Event() for _ in range(3)]

    def read(number):
        began[number].set()
        return 10 * number

    found = []
    for item, value in overlap.read_ahead([0, 1, 2], read):
        found.append((item, value))
        if item < 2:
            assert began[item + 1].wait(SECONDS)
        if item == 0:
            assert not began[2].is_set()
    assert found == [(0, 0), (1, 10), (2, 20)] and list(overlap.read_ahead([], read)) == []


def test_an_error_of_reading_is_raised_at_its_item():
    reader = overlap.read_ahead([1, 0, 1], lambda number: 6 // number)
    assert next(reader) == (1, 6)
    with pytest.raises(ZeroDivisionError):
        next(reader)


def test_rows_are_written_in_order_while_later_ones_are_computed():
    first_taken, found = threading.Event(), []

    def rows():
        yield from bands(1)
        assert first_taken.wait(SECONDS)  # its writer has it before the second is computed
        yield from bands(5)

    def take(rows):
        found.append(int(next(rows)[0, 0, 0]))
        first_taken.set()
        collect(found)(rows)

    with overlap.writing() as write:
        write(rows(), take)
    assert found == [0, 0, 1, 2, 3, 4]


def test_so_many_results_are_written_at_the_same_time_and_no_more():
    running, most_running, lock, two = 0, 0, threading.Lock(), threading.Barrier(2)

    def take(rows):
        nonlocal running, most_running
        with lock:
            running += 1
            most_running = max(most_running, running)
        assert len(list(rows)) == 1
        two.wait(SECONDS)  # passes if two are there at once
        with lock:
            running -= 1

    with overlap.writing(2) as write:
        for _ in range(4):
            write(bands(1), take)
    assert (running, most_running) == (0, 2)


@pytest.mark.parametrize("number", [1, 50])  # with 50 the rows wait for a writer that has ended
def test_an_error_of_writing_is_raised_and_other_results_are_complete(number):
    found = []

    def full(rows):
        next(rows)
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"), overlap.writing(2) as write:
        write(bands(4), collect(found))
        write(bands(number), full)
        for _ in range(2):
            write(bands(1), collect([]))  # here at the latest, the error is known
    assert found == [0, 1, 2, 3]


def test_an_error_of_computing_reaches_the_writer_which_leaves_no_file():
    left = []

    def take(rows):
        try:
            list(rows)
        except MemoryError as e:
            left.append(str(e))
            raise

    with pytest.raises(MemoryError, match="too large"), overlap.writing() as write:
        write(bands(9, MemoryError("too large")), take)
    assert left == ["too large"]
