"""The reward that heeds stated confidence: what it strips, when its mean moves, and that it survives a kill."""

import pytest

from guerdon.errors import UserError
from guerdon.rewards.confidence import StatedConfidence
from guerdon.rewards.lift import pointwise
from guerdon.testing import check_reward
from guerdon.types import Prompt, Rollout, Score

SEEN: list[str] = []


@pointwise
def number(text: str):
    """The number that the answer begins with; none: no judgement."""
    SEEN.append(text)
    return float(text.split()[0]) if text[:1].isdigit() else None


def answers(*texts):
    return [Rollout(Prompt(str(i), "?"), text) for i, text in enumerate(texts)]


BATCH = answers("1\nConfidence: 9.", "3\nConfidence: 2.")


@pytest.mark.parametrize(("form", "want"), [("difference", [1.64, 1.32]), ("threshold", [1.2, 2.55]), ("none", [1, 3])])
def test_golden(form, want):
    SEEN.clear()
    reward = StatedConfidence(number, form=form)
    scores = reward(BATCH)
    assert [s.value for s in scores] == pytest.approx(want, abs=1e-9)
    assert [s.parts["number"] for s in scores] == [1, 3]
    assert reward.baseline == pytest.approx(0.2)  # .9 * 0 + .1 * 2, before it is used
    assert ([r.content for r in BATCH] if form == "none" else ["1", "3"]) == SEEN


def test_the_mean_goes_on_from_the_start():
    reward = StatedConfidence(number, start=5.0, decay=0.5)
    reward(answers("1", "3"))
    assert reward.baseline == pytest.approx(3.5)
    reward(answers("1"))
    assert reward.baseline == pytest.approx(2.25)
    assert reward.metrics()["confidence/stated"] == 0


def test_what_abstains_stays_out_of_the_mean():
    reward = StatedConfidence(number)
    good, bad = reward(answers("2\nConfidence: 10", "no number\nConfidence: 0"))
    assert bad.abstained and not good.abstained
    assert reward.baseline == pytest.approx(0.2)
    assert reward.metrics()["confidence/mean"] == 0.5


def test_clipped_before_and_after():
    reward = StatedConfidence(number, clip=2.0)
    [score] = reward(answers("50\nConfidence: 10"))
    assert score.parts["number"] == 2
    assert reward.baseline == pytest.approx(0.2)
    assert score.value == 2


def test_without_a_statement_nothing_changes():
    [score] = StatedConfidence(number)(answers("4"))
    assert score.value == 4


def test_a_resumed_run_goes_on_exactly():
    a, b = StatedConfidence(number), StatedConfidence(number)
    a(BATCH)
    b.load_state_dict(a.state_dict())
    assert [s.value for s in a(BATCH)] == [s.value for s in b(BATCH)]
    assert a.state_dict() == b.state_dict()


def test_the_span_is_that_of_the_whole_answer():
    import torch

    rollout = BATCH[0].with_(actions=torch.zeros(5, dtype=torch.long), mask=torch.ones(5, dtype=torch.bool))
    [score] = StatedConfidence(lambda rs: [Score.whole(r, 1.0) for r in rs])([rollout])
    assert [(s.start, s.stop) for s in score.spans] == [(0, 5)]


def test_contract_of_rewards():
    from guerdon.rewards.resolve import public_rewards

    check_reward(StatedConfidence(public_rewards()["length"], form="none"))


@pytest.mark.parametrize("wrong", [{"form": "ratio"}, {"decay": 1.0}, {"decay": 0.0}, {"clip": 0.0}])
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=r"decay|form"):
        StatedConfidence(number, **wrong)
