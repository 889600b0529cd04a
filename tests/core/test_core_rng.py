"""Keys: the same everywhere, different from each other."""

import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key

part = st.one_of(st.integers(-5, 5), st.text(max_size=3))


def test_the_number_is_fixed_for_good():
    # blake2b of the path's text: a change here would break the resumption of every saved run
    assert Key(0).number == 2631537505891389924
    assert Key(7, ("rollout", 3)).number == 4732198361263248080


def test_another_process_agrees():
    code = "from guerdon.core.rng import Key; print(Key(3).fold('rollout', 5).number)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == Key(3).fold("rollout", 5).number


@given(st.lists(part, max_size=4), st.lists(part, max_size=4), st.integers(0, 3), st.integers(0, 3))
def test_different_paths_give_different_streams(a, b, s, t):
    same = (s, a) == (t, b)
    assert (Key(s, tuple(a)).number == Key(t, tuple(b)).number) == same
    assert 0 <= Key(s, tuple(a)).number < 2**63


def test_folding_is_appending_and_leaves_the_key_alone():
    key = Key(1)
    assert key.fold("a").fold(2) == key.fold("a", 2) == Key(1, ("a", 2))
    assert key == Key(1)
    assert str(key.fold("a", 2)) == "1/a/2"
    assert key.fold(1, 2).number != key.fold(12).number != key.fold("1", "2").number


def test_generators_repeat_and_touch_nothing_global():
    before = torch.random.get_rng_state()
    a, b = (torch.rand(5, generator=Key(4).generator()) for _ in range(2))
    assert torch.equal(a, b)
    assert sorted(Key(4).permutation(9)) == list(range(9))
    assert Key(4).permutation(9) == Key(4).permutation(9)
    assert torch.equal(before, torch.random.get_rng_state())
