"""Prefix trees: what siblings share, which leaves are compared, and that a continuation is a sample like any other."""

import collections
import math

import pytest
import torch

from guerdon.core.inference_distance import pairs_by_depth
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.search.prefix_tree import PrefixTreeSampler, comparisons, shared
from guerdon.search.topology import chain_pairs, distances, tree_pairs
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Prompt, Score

KEY = Key(0)
PROMPTS = [Prompt("p", "a b"), Prompt("q", "c")]


@pytest.fixture(scope="module")
def policy():
    return new_policy("abcdefgh", 0, max_new=12, width=32, layers=1)


def test_leaves_share_their_prefixes(policy):
    trees = PrefixTreeSampler(branching=2, depth=3, segment=2)(policy, PROMPTS, KEY)
    assert [t.prompt for t in trees] == PROMPTS
    for g, tree in enumerate(trees):
        assert 2 <= len(tree.leaves) <= 8
        assert [leaf.path for leaf in tree.leaves] == sorted({leaf.path for leaf in tree.leaves})
        for leaf in tree.leaves:
            spans = leaf.rollout.segments["segment"]
            assert spans[0][0] == 0 and spans[-1][1] == len(leaf.rollout) == len(leaf.rollout.logp)
            assert len(spans) == len(leaf.path)
            assert leaf.rollout.end == "stop" or len(spans) == 3
            assert leaf.rollout.group == g
            for other in tree.leaves:
                d = shared(leaf, other)
                n = spans[d - 1][1] if d else 0
                assert leaf.rollout.actions[:n].tolist() == other.rollout.actions[:n].tolist()
                if other is not leaf:
                    assert leaf.rollout.actions.tolist() != other.rollout.actions.tolist()


def test_probabilities_are_those_of_the_whole_response(policy):
    [tree, _] = PrefixTreeSampler(branching=2, depth=3, segment=2)(policy, PROMPTS, KEY)
    batch = policy.collate([leaf.rollout for leaf in tree.leaves])
    with torch.no_grad():
        torch.testing.assert_close(policy.forward(batch).logp, batch.old_logp, atol=1e-4, rtol=0)


def test_an_extension_begins_and_goes_on_as_sample_does(policy):
    whole = policy.sample(PROMPTS, 3, KEY)
    begun = policy.extend([r.with_(content="", actions=None, logp=None, mask=None) for r in whole[::3]], 3, KEY, most=12)
    assert [r.actions.tolist() for r in begun] == [r.actions.tolist() for r in whole]
    assert [(r.content, r.end, r.prompt.id) for r in begun] == [(r.content, r.end, r.prompt.id) for r in whole]


def test_a_sure_policy_has_one_child(policy):
    toy = ToyPolicy()
    with torch.no_grad():
        toy.logits[..., 1] = 50.0
    [tree] = PrefixTreeSampler(depth=2, segment=3)(toy, toy_prompts(1), KEY)
    assert [leaf.path for leaf in tree.leaves] == [(0, 0)]
    assert comparisons([tree], 5, KEY) == []
    pairs, metrics = tree_pairs([tree], ToyReward(), 5, KEY)
    assert pairs == [] and "topology/distance" not in metrics


def test_early_ends_make_short_paths():
    toy = ToyPolicy(letters="ab")
    trees = PrefixTreeSampler(branching=3, depth=3, segment=1, retries=20)(toy, toy_prompts(4), KEY)
    lengths = {len(leaf.path) for tree in trees for leaf in tree.leaves}
    assert lengths == {1, 2, 3}


def full_tree():
    """All children are there: four letters, no stop."""
    toy = ToyPolicy(letters="abcdefghijkl", steps=6)
    with torch.no_grad():
        toy.logits[..., 0] = -50.0
    [tree] = PrefixTreeSampler(branching=2, depth=3, segment=2, retries=50)(toy, toy_prompts(1), KEY)
    assert len(tree.leaves) == 8
    return tree


def test_comparisons_by_depth():
    tree = full_tree()
    counted = lambda found: [collections.Counter(c.depth for c in found)[d] for d in range(3)]
    assert counted(comparisons([tree], 99, KEY, spread="uniform")) == pairs_by_depth(2, 3) == [16, 8, 4]
    assert counted(comparisons([tree], 9, KEY)) == [3, 3, 3]
    assert counted(comparisons([tree], 99, KEY)) == [16, 8, 4]
    few = comparisons([tree], 9, KEY)
    assert [(c.first.path, c.second.path) for c in few] == [(c.first.path, c.second.path) for c in comparisons([tree], 9, KEY)]
    for c in few:
        assert c.prefix == 2 * c.depth


def test_pairs_say_where_they_part():
    tree = full_tree()
    pairs, metrics = tree_pairs([tree], ToyReward("a"), 9, KEY)
    assert pairs
    for pair in pairs:
        better, worse = (s.value for s in ToyReward("a")(pair.ranked))
        assert better > worse and pair.margin == pytest.approx(better - worse)
        meta = pair.prompt.meta
        a, b = (r.actions.tolist() for r in pair.ranked)
        assert [tree.leaves[i].rollout.actions.tolist() for i in meta["leaves"]] == [a, b]
        assert meta["prefix_len"] == 2 * meta["lca_depth"]
        assert a[: meta["prefix_len"]] == b[: meta["prefix_len"]]
    assert metrics["topology/leaves"] == 8 and metrics["topology/depth"] == 1


def test_distances_shrink_with_comparisons():
    tree = full_tree()
    none, some, more = (distances(tree, comparisons([tree], n, KEY), 0.5) for n in (0, 6, 20))
    assert none.count(math.inf) == 16  # the two halves share nothing
    assert sum(some) > sum(more) and math.inf not in more
    assert distances(tree, [], 0.0) == [math.inf] * 28


def test_ties_and_missing_verdicts_make_no_pair():
    tree = full_tree()
    assert tree_pairs([tree], lambda rs: [Score.whole(r, 1.0) for r in rs], 9, KEY)[0] == []
    half = lambda rs: [Score.whole(r, float(i)) if i % 2 else Score.abstain("busy") for i, r in enumerate(rs)]
    assert tree_pairs([tree], half, 9, KEY)[0] == []


def test_chain_pairs():
    toy, prompts = ToyPolicy(), toy_prompts(3)
    pairs, _ = chain_pairs(toy, prompts, ToyReward("a"), 4, KEY)
    assert 3 < len(pairs) <= 12
    for pair in pairs:
        better, worse = (s.value for s in ToyReward("a")(pair.ranked))
        assert better > worse


def test_a_sentence_ends_a_segment():
    toy, cut = ToyPolicy(letters="ab."), 0
    for tree in PrefixTreeSampler(branching=3, depth=3, segment=3, sentence=True)(toy, toy_prompts(3), KEY):
        for leaf in tree.leaves:
            pieces = toy.pieces(leaf.rollout)
            for a, b in leaf.rollout.segments["segment"]:
                assert "." not in pieces[a : b - 1]
                cut += b - a < 3 and pieces[b - 1 : b] == ["."]
            assert leaf.rollout.content == "".join(pieces)
    assert cut


def test_refused():
    with pytest.raises(UserError, match="branching 0"):
        PrefixTreeSampler(branching=0)
    with pytest.raises(UserError, match="extend"):
        PrefixTreeSampler()(object(), PROMPTS, KEY)  # type: ignore[arg-type]
