"""Token rewards of a rewriting model: the worked example, its edge cases, and values carried between tokenisations."""

import pytest
import torch

from guerdon.core.rewriting import realign, rewrite_rewards

F = torch.float64


def rewards(written, likeliest, **settings):
    written, likeliest = torch.tensor([written]), torch.tensor([likeliest])
    return rewrite_rewards(written == likeliest, torch.ones_like(written, dtype=torch.bool), dtype=F, **settings)


def by_two_sequences(written, rewrite, likeliest):
    """The definition with the rewrite written out: + while both agree, then - where the teacher-forced choice differs."""
    out, diverged = [], False
    for t, token in enumerate(written):
        diverged = diverged or t >= len(rewrite) or rewrite[t] != token
        out.append((-1.0 if likeliest[t] != token else 0.0) if diverged else 1.0)
    return out


def test_worked_example():
    written, rewrite, likeliest = [5, 6, 7, 8, 2], [5, 6, 9, 2], [5, 6, 9, 8, 2]
    want = torch.tensor([[1, 1, -1, 0, 0]], dtype=F)
    torch.testing.assert_close(rewards(written, likeliest), want, atol=1e-9, rtol=0)
    assert by_two_sequences(written, rewrite, likeliest) == want[0].tolist()
    torch.testing.assert_close(rewards(written, likeliest, positive=0.5, negative=2), torch.tensor([[0.5, 0.5, -2, 0, 0]], dtype=F))
    torch.testing.assert_close(rewards(written, likeliest, normalise="length"), want / 5, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("written", "rewrite", "likeliest", "want"),
    [
        ([5, 6, 2], [5, 2], [5, 2, 2], [1, -1, 0]),  # the rewrite ends first: its end of text disagrees
        ([5, 2], [5, 6, 2], [5, 6], [1, -1]),  # the rewrite goes on: the response's end of text disagrees
        ([2], [2], [2], [1]),  # empty, and rightly so
        ([2], [5, 2], [5], [-1]),  # empty, and wrongly
        ([5, 6, 5, 6], [7, 6], [7, 6, 5, 8], [-1, 0, 0, -1]),  # agreeing again is not rewarded again
    ],
)
def test_edges(written, rewrite, likeliest, want):
    assert rewards(written, likeliest)[0].tolist() == want
    assert by_two_sequences(written, rewrite, likeliest) == want


def test_what_the_policy_did_not_choose_is_skipped():
    agrees, mask = torch.tensor([[True, False, True, False], [False] * 4]), torch.tensor([[1, 0, 1, 1], [0] * 4]).bool()
    got = rewrite_rewards(agrees, mask, normalise="length", dtype=F)
    torch.testing.assert_close(got, torch.tensor([[1, 0, 1, -1], [0] * 4], dtype=F) / 3)
    with pytest.raises(ValueError, match="normalise='words'"):
        rewrite_rewards(agrees, mask, normalise="words")


def test_values_on_another_tokenisation():
    # "abcdef" as ab|cdef|<end> and as abc|def|<end>
    got = realign([1.0, -4.0, -1.0], [2, 6, 6], [3, 6, 6])
    assert got == pytest.approx([1 - 1.0, -3.0, -1.0])
    assert sum(got) == pytest.approx(-4.0)
    assert realign([1.0, 2.0], [3, 3], [3, 3]) == [1.0, 2.0]  # the same on both sides
    assert realign([1.0, 2.0], [3, 3], [1, 3]) == pytest.approx([1 / 3, 2 / 3 + 2])
    assert realign([5.0, 1.0], [0, 2], [2]) == [6.0]  # without characters, at the start
    assert realign([1.0], [9], [2]) == [1.0]  # more text than the other knows of
    assert realign([1.0], [9], []) == [] and realign([], [], [1]) == [0.0]
