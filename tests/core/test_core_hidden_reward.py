"""Token hidden rewards: the worked example, the definition pair by pair, the gradient they stand for, and every edge."""

import pytest
import torch

from guerdon.core import hidden_reward as hr

F = torch.float64
HIDDEN = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]], dtype=F)
P = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]], dtype=F)
PLACE, RIGHT, ONE = torch.tensor([[0], [1]]), torch.tensor([True, False]), torch.ones(2, 1, dtype=torch.bool)


def close(got, expected):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=F), rtol=0, atol=1e-9)


def test_the_worked_example():
    error = hr.prediction_error(P, PLACE)
    close(error, [[[0.5, -0.5]], [[-0.25, 0.25]]])
    s = hr.influence(error, HIDDEN, RIGHT, ONE)
    close(s, [[0.5], [-0.25]])
    thr = hr.token_hidden_reward(s, RIGHT)
    close(thr, [[0.5], [0.25]])
    close(hr.weights(thr, RIGHT, ONE, p=0.2, tau=0.05), [[1.2], [1.2]])
    close(hr.weights(thr, RIGHT, ONE, p=-0.2, tau=0.05), [[0.8], [0.8]])
    close(hr.weights(thr, RIGHT, ONE, p=0.2, tau=0.3), [[1.2], [0.0]])
    close(hr.least_mean(s, RIGHT, ONE), 0.5)


N, T, V, D = 4, 3, 5, 2
DRAW = torch.Generator().manual_seed(1)
LOGITS, STATES = torch.randn(N, T, V, generator=DRAW, dtype=F), torch.randn(N, T, D, generator=DRAW, dtype=F)
TAKEN = torch.randint(V, (N, T), generator=DRAW)
MASK = torch.arange(T) < torch.tensor([3, 1, 2, 3])[:, None]
SOME = torch.tensor([True, False, True, False])
ERROR = hr.prediction_error(LOGITS.softmax(-1), TAKEN)
S = hr.influence(ERROR, STATES, SOME, MASK)


def test_it_is_the_sum_over_pairs_of_tokens():
    for j in range(N):
        for t in range(T):
            pairs = [(i, k) for i in range(N) for k in range(T) if SOME[i] and MASK[i, k]]
            expected = sum(float((ERROR[j, t] @ ERROR[i, k]) * (STATES[j, t] @ STATES[i, k])) for i, k in pairs)
            assert float(S[j, t]) == pytest.approx(expected if MASK[j, t] else 0.0, abs=1e-9)


def test_it_is_what_a_step_on_the_head_does_to_the_right_responses():
    """The directional derivative of the right responses' log-likelihood along one token's own gradient in the head's weight."""
    weight = torch.randn(V, D, generator=DRAW, dtype=F)

    def likelihood(w, rows):
        logp = (STATES @ w.T).log_softmax(-1).gather(-1, TAKEN[..., None])[..., 0]
        return torch.where(rows, logp, 0.0)

    error = hr.prediction_error((STATES @ weight.T).softmax(-1), TAKEN)
    s = hr.influence(error, STATES, SOME, MASK)
    both = MASK & SOME[:, None]
    toward = torch.func.grad(lambda w: likelihood(w, both).sum())(weight)
    each = torch.func.jacrev(lambda w: likelihood(w, MASK))(weight)
    close(s, (each * toward).sum((-1, -2)))


def test_some_coordinates_are_taken_as_they_are():
    """Of a part of the vocabulary the probabilities are not made to sum to 1."""
    ids = TAKEN.unique()
    part = hr.prediction_error(LOGITS.softmax(-1)[..., ids], torch.searchsorted(ids, TAKEN))
    close(part, ERROR[..., ids])


def test_padding_does_not_matter():
    spoiled = STATES.clone()
    spoiled[~MASK] = 1e6
    close(hr.influence(ERROR, spoiled, SOME, MASK), S)
    shown = torch.where(MASK, S, torch.nan)
    close(hr.least_mean(shown, SOME, MASK), hr.least_mean(S, SOME, MASK))
    close(hr.weights(shown, SOME, MASK, p=0.3, tau=0.1), hr.weights(S, SOME, MASK, p=0.3, tau=0.1))
    close(hr.largest_share(shown, MASK, 0.5), hr.largest_share(S, MASK, 0.5))


@pytest.mark.parametrize("right", [[True] * 4, [False] * 4])
def test_a_group_of_one_kind_is_left_as_it_is(right):
    close(hr.weights(S, torch.tensor(right), MASK, p=0.2, tau=0.1), torch.ones(N, T))
    close(hr.negative_weights(S, torch.tensor(right), MASK), torch.ones(N, T))


def test_a_right_response_without_tokens_is_none():
    empty = MASK & torch.tensor([False, True, False, True])[:, None]
    close(hr.weights(S, SOME, empty, p=0.2, tau=0.1), torch.ones(N, T))
    assert hr.least_mean(S, SOME, empty) == torch.inf
    close(hr.negative_weights(S, SOME, empty), torch.ones(N, T))


def test_a_threshold_above_all_masks_nothing():
    close(hr.weights(S, SOME, MASK, p=0.2, tau=1e9), torch.ones(N, T))
    close(hr.weights(torch.zeros(N, T, dtype=F), SOME, MASK, p=0.2, tau=-1), torch.ones(N, T))  # sign(0) = 0


@pytest.mark.parametrize(("share", "kept"), [(1.0, 9), (0.34, 3), (0.0, 0)])
def test_a_share_of_the_tokens(share, kept):
    tau = hr.largest_share(S, MASK, share)
    assert int((S.abs()[MASK] > tau).sum()) == kept


def test_nthr_spares_what_wrong_responses_share_with_right_ones():
    s = torch.tensor([[4.0, 2.0], [1.0, 1.0], [3.0, 0.5], [1.5, 9.0]], dtype=F)
    right, mask = torch.tensor([True, True, False, True]), torch.tensor([[True, True], [True, True], [True, True], [False, False]])
    close(hr.least_mean(s, right, mask), 1.0)  # 3 and 1; the last has no tokens
    third = abs(0.5 - 2 / 3) * 2
    close(hr.negative_weights(s, right, mask), [[1, 1], [1, 1], [third, 1], [1, 1]])
    close(hr.negative_weights(s, right, mask, beta=4), torch.ones(4, 2))
    close(hr.negative_weights(s[1:3], right[1:3], mask[1:3]), [[1, 1], [0, 1]])  # half right: not at all
