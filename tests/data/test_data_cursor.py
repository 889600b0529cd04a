import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError

sizes = st.integers(1, 40)
batches = st.integers(1, 17)
seeds = st.integers(0, 1000)


@given(sizes, batches, seeds)
@settings(max_examples=60, deadline=None)
def test_every_epoch_holds_each_item_once(n, batch, seed):
    cursor = Cursor(list(range(n)), batch, Key(seed))
    epochs = 3
    line = [x for t in range(math.ceil(epochs * n / batch)) for x in cursor.at(t)]
    for e in range(epochs):
        assert sorted(line[e * n : (e + 1) * n]) == list(range(n))


@given(sizes, batches, seeds, st.lists(st.integers(0, 50), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_at_is_pure(n, batch, seed, steps):
    items = [f"item {i}" for i in range(n)]
    forward = {t: Cursor(items, batch, Key(seed)).at(t) for t in sorted(steps)}
    one = Cursor(items, batch, Key(seed))
    assert {t: one.at(t) for t in reversed(steps)} == forward


@given(sizes, batches, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_epoch_at_is_the_epoch_of_the_first_item(n, batch, step):
    cursor = Cursor(range(n), batch, Key(0))
    assert cursor.epoch_at(step) == step * batch // n
    assert cursor.epoch_at(0) == 0
    seen = {x for t in range(cursor.steps_per_epoch) for x in cursor.at(t)}
    assert seen == set(range(n))
    assert cursor.steps_per_epoch == 1 or len({x for t in range(cursor.steps_per_epoch - 1) for x in cursor.at(t)}) < n


def test_epochs_and_seeds_differ():
    epoch = lambda seed, e: Cursor(range(50), 50, Key(seed)).at(e)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)


def test_order_is_the_documented_stream():
    key = Key(7).fold("prompts")
    assert Cursor(range(20), 4, key).at(7) == key.fold("epoch", 1).permutation(20)[8:12]


def test_batch_size_does_not_change_the_line():
    small, large = Cursor(range(10), 2, Key(3)), Cursor(range(10), 6, Key(3))
    assert [x for t in range(15) for x in small.at(t)] == [x for t in range(5) for x in large.at(t)]


def test_wrong_input():
    with pytest.raises(UserError, match="no items"):
        Cursor([], 2, Key(0))
    with pytest.raises(UserError, match="batch=0"):
        Cursor([1], 0, Key(0))
    with pytest.raises(IndexError, match="from 0"):
        Cursor([1], 1, Key(0)).at(-1)
