"""Cut points, rewards and advantages of continuations: golden numbers, borders, and what must not matter."""

import pytest
import torch

from guerdon.core import continuation as c
from guerdon.core import credit
from guerdon.core.rng import Key

ENTROPY = torch.tensor([[1.0, 2.0, 0.0, 4.0, 1.0, 1.0]], dtype=torch.float64)
SIX = torch.tensor([6])


def near(got, expected):
    torch.testing.assert_close(
        got, torch.as_tensor(expected, dtype=torch.float64).expand(got.shape), atol=5e-9, rtol=0
    )  # eight digits are given


def test_golden_smoothing_and_chances():
    smooth = c.smoothed(ENTROPY, SIX, width=3)
    near(smooth, [[1, 1, 2, 5 / 3, 2, 2 / 3]])
    near(
        c.chunk_probabilities(smooth, SIX, chunks=2),
        [[0.21194156, 0.21194156, 0.57611688, 0.36186103, 0.50501774, 0.13312123]],
    )


def test_an_even_width_takes_one_more_and_one_smooths_nothing():
    assert torch.equal(c.smoothed(ENTROPY, SIX, width=2), c.smoothed(ENTROPY, SIX, width=3))
    assert torch.equal(c.smoothed(ENTROPY, SIX, width=1), ENTROPY)


@pytest.mark.parametrize("filler", [0.0, 9.0, torch.nan, torch.inf])
def test_what_lies_behind_a_text_does_not_matter(filler):
    longer = torch.cat([ENTROPY, torch.full((1, 3), filler, dtype=torch.float64)], 1)
    near(c.smoothed(longer, SIX, width=3)[:, :6], c.smoothed(ENTROPY, SIX, width=3))
    for how in c.CUTS:
        draw = torch.tensor([[0.3, 0.9]])
        assert torch.equal(*(c.cut_points(x, SIX, draw, width=3, how=how, least=1, last=1) for x in (longer, ENTROPY)))


def test_cuts_lie_one_place_behind_the_entropy_that_speaks_for_them():
    draw = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    cuts = lambda how: c.cut_points(ENTROPY, SIX, draw, width=3, how=how, least=0, last=0).tolist()
    assert cuts("argmax") == [[2, 4]]  # the largest entropies are of places 1 and 3
    assert cuts("argmin") == [[3, 5]]
    assert cuts("uniform") == [[2, 5]]
    assert cuts("entropy") == [[3, 5]]


def test_drawn_places_follow_their_chances():
    many, draws = 1, 20_000
    uniform = torch.rand(draws, 2, generator=Key(0).generator(), dtype=torch.float64)
    found = c.cut_points(ENTROPY.expand(draws * many, 6), SIX.expand(draws), uniform, width=3, least=0, last=0) - 1
    share = torch.stack([(found == t).double().mean(0) for t in range(6)], 1)
    chance = c.chunk_probabilities(c.smoothed(ENTROPY, SIX, width=3), SIX, chunks=2)[0]
    torch.testing.assert_close(share[0, :3], chance[:3], atol=0.012, rtol=0)
    torch.testing.assert_close(share[1, 3:], chance[3:], atol=0.012, rtol=0)
    assert share[0, 3:].sum() == share[1, :3].sum() == 0, "a draw stays in its chunk"


def test_a_remainder_is_never_drawn_and_rows_do_not_look_at_each_other():
    length = torch.tensor([7, 9])
    entropy = torch.rand(2, 9, generator=Key(1).generator(), dtype=torch.float64)
    chance = c.chunk_probabilities(entropy, length, chunks=2)
    assert (chance[0, 6:] == 0).all()
    assert chance[1, 8] == 0
    near(chance.sum(1), [2.0])
    near(c.chunk_probabilities(entropy[:1, :7], length[:1], chunks=2), chance[:1, :7])
    assert (c.chunk_probabilities(entropy, torch.tensor([1, 9]), chunks=2)[0] == 0).all(), "shorter than its chunks"


def test_borders():
    length = torch.tensor([50])
    entropy = torch.zeros(1, 50, dtype=torch.float64)
    ends = torch.tensor([[0.0, 0.5, 1 - 1e-12]], dtype=torch.float64)
    assert c.cut_points(entropy, length, ends, width=5).tolist() == [[20, 25, 30]]
    assert c.cut_points(entropy, length, ends, width=5, least=0, last=0).tolist() == [[1, 25, 48]]


@pytest.mark.parametrize(("n", "fits"), [(44, False), (45, True)])
def test_long_enough(n, fits):
    """20 tokens before a cut, 20 behind it and the 5 of a continuation; a text shorter than its chunks has none to cut in."""
    assert bool(c.long_enough(torch.tensor([n]), chunks=8, tokens=5)) is fits
    assert not c.long_enough(torch.tensor([45]), chunks=46, tokens=5)


# ---------------------------------------------------------------- rewards

STATES = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)
GOLD = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
IDS, TRUE = torch.tensor([[5, 7]]), torch.tensor([[5, 9]])


@pytest.mark.parametrize(("kind", "value"), [("cosine", 0.85355339), ("binary", 0.5), ("hybrid", 1.35355339)])
def test_golden_rewards(kind, value):
    near(c.likeness(kind, IDS, TRUE, STATES, GOLD).double(), [value])


@pytest.mark.parametrize("bad", [0.0, torch.nan, torch.inf])
def test_a_state_that_is_none_has_cosine_nought(bad):
    spoilt = STATES.clone()
    spoilt[0, 0] = bad
    near(c.cosine(spoilt, GOLD), [0.5])
    near(c.cosine(GOLD, spoilt), [0.5])


def test_states_are_asked_for():
    with pytest.raises(ValueError, match="without hidden states"):
        c.likeness("hybrid", IDS, TRUE)
    assert c.likeness("binary", IDS, TRUE).item() == 0.5


# ---------------------------------------------------------------- advantages


def test_golden_advantages_of_one_text():
    reward = torch.tensor([0.9, 0.5, 0.5, 0.3], dtype=torch.float64)
    near(credit.grpo(reward, torch.zeros(4, dtype=torch.long)), [1.39075345, -0.19867906, -0.19867906, -0.99339532])


def test_batch_std_keeps_what_is_at_stake():
    """Two groups with spreads .01 and 1: the z-score makes them alike, the batch's spread does not."""
    reward = torch.tensor([0.50, 0.51, 0.0, 1.0], dtype=torch.float64)
    group = torch.tensor([0, 0, 1, 1])
    spread = reward.std()
    near(c.batch_std(reward, group), torch.tensor([-0.005, 0.005, -0.5, 0.5], dtype=torch.float64) / (spread + 1e-6))
    z = credit.grpo(reward, group)
    assert float(z[1]) == pytest.approx(float(z[3]), rel=1e-3)
    assert (c.batch_std(torch.full((4,), 0.1), group) == 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: c.smoothed(ENTROPY, SIX, width=0),
        lambda: c.chunk_probabilities(ENTROPY, SIX, chunks=0),
    ],
)
def test_wrong_settings_are_named(call):
    with pytest.raises(ValueError, match="hint:"):
        call()


def test_entropy_finds_the_needles():
    """Five uncertain tokens among 32 of a text that goes on by itself: at least 1.5 times as many cuts there as by uniform draws."""
    texts, size = 400, 128
    place = torch.arange(size)
    needle = (place % 32 >= 10) & (place % 32 < 15)
    entropy = torch.where(needle, 2.77, 0.2).expand(texts, size)
    uniform = torch.rand(texts, 8, generator=Key(4).generator(), dtype=torch.float64)
    length = torch.full((texts,), size)
    share = {how: needle[c.cut_points(entropy, length, uniform, width=5, how=how) - 1].double().mean() for how in ("entropy", "uniform")}
    assert share["entropy"] >= 1.5 * share["uniform"] > 0
