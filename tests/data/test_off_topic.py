"""Pairs with responses to other prompts."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.data.off_topic import off_topic, surprising
from guerdon.errors import UserError
from guerdon.types import Preference, Prompt, Rollout


def pairs(n, prompts=None):
    asked = [Prompt(f"p{i}", f"question {i % (prompts or n)}", {"rating": 3}) for i in range(n)]
    return [Preference(p, (Rollout(p, f"good {i}"), Rollout(p, f"bad {i}")), margin=1.0) for i, p in enumerate(asked)]


def test_fourteen_for_every_pair_whose_partners_ask_something_else():
    items = pairs(40)
    added = off_topic(items, key=Key(0))
    by_prompt = {}
    for pair in added:
        by_prompt.setdefault(pair.prompt.content, []).append(pair)
    full = {k: v for k, v in by_prompt.items() if len(v) == 14}
    assert len(full) >= 30  # the others met themselves, or the same pair twice
    for content, found in full.items():
        i = int(content.split()[1])
        won = [p for p in found if p.label == 1]
        assert len(won) == 8
        assert {p.ranked[0].content for p in won} == {f"good {i}", f"bad {i}"}
        tied = [p for p in found if p.label == 0.5]
        assert len(tied) == 6
        assert not {f"good {i}", f"bad {i}"} & {r.content for p in tied for r in p.ranked}
    assert all(r.prompt == p.prompt for p in added for r in p.ranked)
    assert all(p.margin is None for p in added)
    assert len({p.prompt.id for p in added}) == len(added)


def test_no_pair_meets_itself_or_its_own_prompt():
    for n, prompts in ((3, None), (40, 2)):
        items = pairs(n, prompts)
        own = {r.content: item.prompt.content for item in items for r in item.ranked}
        for pair in off_topic(items, key=Key(1)):
            strange = pair.ranked if pair.label == 0.5 else pair.ranked[1:]
            assert all(own[r.content] != pair.prompt.content for r in strange)
            assert pair.ranked[0].content != pair.ranked[1].content


def test_what_is_no_pair_or_has_one_prompt_only_is_refused():
    with pytest.raises(UserError, match="no two prompts that differ"):
        off_topic(pairs(6, 1), key=Key(0))
    item = pairs(1)[0]
    with pytest.raises(UserError, match="3 responses, expected pairs"):
        off_topic([Preference(item.prompt, (*item.ranked, item.ranked[0]))], key=Key(0))


def test_the_filter_keeps_what_a_reward_model_gets_wrong():
    a, b, c = pairs(3)
    tie = Preference(c.prompt, c.ranked, label=0.5)
    scores = {"good 0": 3.0, "bad 0": -3.0, "good 1": -1.0, "bad 1": 1.0, "good 2": 0.1, "bad 2": 0.0}

    def score(rollouts):
        return torch.tensor([scores[r.content] for r in rollouts])

    assert surprising([a, b, tie], score) == [b]
    assert surprising([a, b, tie], score, least=0.0) == [a, b, tie]
