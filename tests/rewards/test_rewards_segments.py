"""Segments of texts, where they end in tokens, and rewards of segments: the worked example from tags to token rewards."""

import pytest
import torch

from guerdon.core import kl
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.learn.verbs import placed
from guerdon.policies.sentences import sentences, sub_sentences, whole
from guerdon.rewards import pointwise, weighted
from guerdon.rewards.model import ScalarModelReward
from guerdon.rewards.segments import InSegments, SegmentChange, SegmentReward, in_segments
from guerdon.testing import ToyPolicy, check_reward
from guerdon.types import Batch, Prompt, Rollout, Score

DOG = "The dog quickly ran back home, and then it slept all day, because the weather was bad again"
FOX = "Well the quick brown fox, yes, it ran; over the lazy dog that was asleep on the mat"


def cut(text, spans):
    return [text[a:b] for a, b in spans]


def test_sub_sentences_of_the_worked_examples():
    want = ["The dog quickly ran back home,", "and then it slept all day,", "because the weather was bad again"]
    assert cut(DOG, sub_sentences(DOG)) == want
    assert cut(FOX, sub_sentences(FOX)) == ["Well the quick brown fox, yes, it ran;", "over the lazy dog that was asleep on the mat"]
    two = f"  {DOG}.\n\nNo."
    assert cut(two, sub_sentences(two)) == [*want[:2], want[2] + ".", "No."]
    assert cut("one, two, three, four, five", sub_sentences("one, two, three, four, five")) == ["one, two, three, four, five"]


def test_sentences():
    text = 'He left. "Why?" she asked... Nobody knew!\nNobody 3.5 said\n'
    assert cut(text, sentences(text)) == ["He left.", '"Why?"', "she asked...", "Nobody knew!", "Nobody 3.5 said"]
    assert sentences(" \n ") == [] == sub_sentences("") == whole("  ")
    assert whole(" a b ") == [(1, 4)]


def test_segments_end_with_the_token_of_their_last_character():
    policy = new_policy(("a", "b", "."), 0, max_new=8)
    (rollout,) = [policy.encode(Rollout(Prompt("p", "a"), "a b . b . a"))]
    got = in_segments(policy, rollout, ("sentence", "whole")).segments
    assert got == {"sentence": ((0, 3), (3, 5), (5, 6)), "whole": ((0, 6),)}  # of 7 decisions: the last is the end
    short = rollout.with_(actions=rollout.actions[:4], mask=rollout.mask[:4])
    assert in_segments(policy, short, ("sentence",)).segments == {"sentence": ((0, 3), (3, 4), (3, 4))}
    text = Rollout(Prompt("p", "a"), "a b")
    assert in_segments(policy, text) is text
    with pytest.raises(UserError, match="kind 'sentences'"):
        in_segments(policy, rollout, ("sentences",))


class Says:
    """A tagger of six-token responses whose verdicts are known."""

    def __init__(self, kind, verdicts, bad, good):
        self.kind, self.bad, self.good = kind, bad, good
        self.logits = torch.full((len(verdicts), 3), 9.0, dtype=torch.float64)  # the third class is not looked at
        for row, verdict in zip(self.logits, verdicts, strict=True):
            row[good], row[bad] = (1.0, 0.0) if verdict else (0.0, 1.0)

    def tags(self, rollouts):
        return [self.logits for _ in rollouts]


class Completeness:
    def score(self, rollouts):
        return torch.full((len(rollouts),), 4.0, dtype=torch.float64)


def test_worked_example_from_tags_to_token_rewards():
    segments = {"sub_sentence": ((0, 2), (2, 4), (4, 6)), "sentence": ((0, 4), (4, 6))}
    row = Rollout(Prompt("p", "q"), "text", torch.zeros(6, dtype=torch.long), mask=torch.ones(6).bool(), segments=segments)
    reward = weighted(
        {
            "relevance": SegmentReward(Says("sub_sentence", [1, 0, 1], bad=1, good=2)),
            "facts": SegmentReward(Says("sentence", [1, 0], bad=0, good=2), value=0.5),
            "completeness": ScalarModelReward(Completeness(), mean=-0.44677690555995353, std=8.301160619054132),
        },
        {"relevance": 0.3, "completeness": 0.3},
    )
    (score,) = reward([row])
    batch = Batch({}, torch.ones(1, 6).bool(), torch.zeros(1).long(), torch.zeros(1).long())
    paid = placed([score], batch)
    torch.testing.assert_close(paid, torch.tensor([[0, 0.3, 0, 0.2, 0, -0.0392955958]]), atol=1e-7, rtol=0)
    assert score.value == pytest.approx(0.3 + 0.2 - 0.0392955958, abs=1e-9)
    assert {"relevance/good", "facts/segments"} <= set(score.parts) and score.parts["relevance/good"] == 2
    ratios = torch.tensor([[0.1, -0.2, 0, 0.05, 0.3, 0.1]])
    shaped = paid + kl.penalty(ratios, torch.zeros(1, 6), batch.mask, coef=0.3)
    torch.testing.assert_close(shaped, torch.tensor([[-0.03, 0.36, 0, 0.185, -0.09, -0.0692955958]]), atol=1e-7, rtol=0)


def test_without_places_the_sum_is_one_value():
    reward = SegmentReward(Says("sentence", [1, 1, 0], bad=0, good=2))
    (score,) = reward([Rollout(Prompt("p", "q"), "text")])
    assert (score.value, len(score.spans)) == (1.0, 1)
    nothing = SegmentReward(Says("sentence", [], bad=0, good=2))([Rollout(Prompt("p", "q"), "")])[0]
    assert nothing.value == 0 and not nothing.abstained and nothing.parts["segments"] == 0
    with pytest.raises(UserError, match="value -1"):
        SegmentReward(Says("sentence", [], bad=0, good=2), value=-1)


@pointwise
def letters(text):
    return float(sum(c.isalpha() for c in text))


def test_what_each_sentence_adds():
    policy = new_policy(("a", "bb", "."), 0, max_new=8)
    reward = InSegments(SegmentChange(letters), policy)
    (score,) = reward([policy.encode(Rollout(Prompt("p", "a"), "a bb . bb . a"))])
    assert [(s.stop, s.value) for s in score.spans] == [(3, 3.0), (5, 2.0), (6, 1.0)]
    assert score.parts == {"letters": 6.0} and reward.name == "letters"
    check_reward(SegmentChange(letters))
    assert SegmentChange(letters)([Rollout(Prompt("p", "a"), "")])[0].value == 0
    lost = SegmentChange(lambda rollouts: [Score.abstain("?") for _ in rollouts])
    assert lost([Rollout(Prompt("p", "a"), "a")])[0].abstained


def test_toys_have_segments_too():
    rows = ToyPolicy().sample([Prompt("p", "A")], 4, Key(0))
    for row in rows:
        found = in_segments(ToyPolicy(), row)
        assert all(b <= len(row) for spans in found.segments.values() for _, b in spans)
