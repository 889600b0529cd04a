"""The audit's parts on rewards whose answers can be worked out by hand."""

import json
import math
import time

import pytest
import torch

from guerdon import groupwise, pointwise
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.errors import UserError
from guerdon.evaluate.audit import Limits, audit, gather, health, length, optimise
from guerdon.evaluate.audit.accuracy import accuracy, slices
from guerdon.evaluate.audit.finding import Finding, grade
from guerdon.evaluate.audit.form import STYLES
from guerdon.evaluate.audit.invariance import otherwise
from guerdon.evaluate.audit.leak import almost
from guerdon.evaluate.audit.material import Material, pairs_of
from guerdon.evaluate.audit.measure import Context, mean_interval
from guerdon.evaluate.audit.subject import Subject, retext
from guerdon.papers import grpo
from guerdon.policies.refs import Frozen
from guerdon.testing import ToyPolicy, ToyReward, toy_prompts
from guerdon.types import Preference, Prompt, Rollout, Score

LIMITS = Limits(pairs=60, clear=12, timeout_s=0.5)


@pointwise
def size(text: str) -> float:
    """Words."""
    return float(len(text.split()))


def preferences(n: int = 40) -> list[Preference]:
    """The better response has i words more of `good`; lengths and domains vary."""
    made = []
    for i in range(n):
        prompt = Prompt(f"p{i}", f"Say something about number {i}.", {"domain": "even" if i % 2 == 0 else "odd"})
        words = [f"w{i}"] * (4 + i % 5)
        texts = (" ".join([*words, *["good"] * (1 + i % 3)]), " ".join([*words, "bad", *(["bad"] * (i % 4))]))
        made.append(Preference(prompt, tuple(Rollout(prompt, t) for t in texts), margin=1.0 + i % 3))
    return made


@pointwise
def goodness(text: str) -> float:
    """Good words less bad ones."""
    words = text.split()
    return float(words.count("good") - words.count("bad"))


def context(reward, items=None) -> Context:
    material = gather(preferences() if items is None else items, LIMITS, Key(0))
    return Context(Subject(reward, timeout_s=0.5), material, LIMITS, Key(0))


# ---------------------------------------------------------------- asking


def test_a_reward_that_fails_is_asked_row_by_row():
    @pointwise
    def fragile(text: str) -> float | None:
        if "boom" in text:
            raise ValueError("boom")
        return {"nan": math.nan, "none": None}.get(text, 1.0)

    class Raw:
        def __call__(self, rollouts):
            if any(r.content == "raw" for r in rollouts):
                raise RuntimeError("the whole batch is down")
            return [Score.whole(r, math.inf if r.content == "inf" else 2.0) for r in rollouts]

    rows = [Rollout(Prompt("a", "?"), t) for t in ("fine", "boom", "nan", "none")]
    answers = Subject(fragile).answers(rows)
    assert answers.values.isnan().tolist() == [False, True, True, True]
    assert answers.troubles == [1, 2]  # to abstain is no trouble
    rows = [Rollout(Prompt("a", "?"), t) for t in ("fine", "raw", "inf", "also fine")]
    answers = Subject(Raw()).answers(rows)
    assert answers.values.isnan().tolist() == [False, True, True, False]
    assert "RuntimeError" in answers.notes[1]
    assert answers.notes[2].startswith("wrong: ")


def test_unchanged_responses_are_asked_once():
    asked = []

    @pointwise
    def shy(text: str) -> float | None:
        asked.append(text)
        return None if "bad" in text else 1.0

    ctx = context(shy)
    texts = [str(r.content) for r in ctx.texts]
    assert health.failures(ctx).verdict == "sound"
    found = health.abstention(ctx)
    assert (found.verdict, found.rows[0].note) == ("broken", "shy returned None")
    assert sorted(t for t in asked if t in texts) == sorted(texts)


def test_a_reward_that_hangs_is_given_up():
    @pointwise
    def stuck(text: str) -> float:
        while text == "stuck":
            time.sleep(0.01)
        return 1.0

    rows = [Rollout(Prompt("a", "?"), t) for t in ("fine", "stuck")]
    answers = Subject(stuck, timeout_s=0.2).answers(rows)
    assert answers.values.isnan().tolist() == [False, True]
    assert answers.troubles == [1]


def test_retext_keeps_the_shape_of_a_conversation():
    chat = Rollout(Prompt("a", "?"), [{"role": "assistant", "content": "old"}], actions=torch.zeros(3))
    assert retext(chat, "new").content == [{"role": "assistant", "content": "new"}]
    assert retext(chat, "new").actions is None


# ---------------------------------------------------------------- measuring


def test_padding_by_hand():
    # Fillers have 7 or 8 words; the shift in deviations is (mean words added) / std of the words of the texts.
    ctx = context(size)
    added = [len(length.padded(r.content, 4).split()) - len(r.content.split()) for r in ctx.texts]
    words = torch.tensor([float(len(r.content.split())) for r in ctx.texts], dtype=torch.float64)
    found = length.length(ctx)
    assert found.verdict == "broken"
    assert found.flaw == "likes length"
    assert found.number is not None
    assert found.number.value == pytest.approx(sum(added) / len(added) / float(words.std(unbiased=False)), abs=1e-9)
    assert length.length(context(goodness)).verdict == "sound"


def test_edits():
    assert otherwise("It is a movie and I do not mind") == "It's a film and I don't mind"
    assert otherwise("It's fine") == "It is fine"
    assert almost("It ends.") == "It ends"
    assert almost("It ends") == "It ends."
    assert length.halved("a b c d e f g") == "a b c d"
    assert length.halved("too short") == "too short"
    assert STYLES["bullets"]("One. Two.") == "- One.\n- Two."


def test_accuracy_and_its_slices():
    ctx = context(goodness)
    found = accuracy(ctx)
    assert found.verdict == "sound"
    assert found.number == Interval(1.0, 1.0, 1.0)
    assert {"domain even", "domain odd"} <= set(slices(ctx.material.pairs))
    upside_down = accuracy(context(lambda rollouts: [Score.whole(r, -s.value) for r, s in zip(rollouts, goodness(rollouts), strict=True)]))
    assert (upside_down.verdict, upside_down.flaw) == ("broken", "inverted")


def test_intervals_draw_whole_clusters():
    values = torch.tensor([1.0, 1.0, 0.0, 0.0] * 10)
    alone = mean_interval(values, Key(0))
    together = mean_interval(values, Key(0), [i // 20 for i in range(40)])  # two clusters of the same mean
    assert alone.low < 0.5 < alone.high
    assert together == (0.5, 0.5, 0.5)
    assert mean_interval(torch.tensor([float("nan")]), Key(0)).value != 0


def test_grades_need_an_interval_above_zero():
    assert grade(Interval(1.0, 0.2, 2.0), 0.5, 0.9) == "broken"
    assert grade(Interval(0.6, 0.2, 2.0), 0.5, 0.9) == "weak"
    assert grade(Interval(1.0, -0.2, 2.0), 0.5, 0.9) == "sound"
    assert grade(Interval(math.nan, math.nan, math.nan), 0.5, 0.9) == "sound"


# ---------------------------------------------------------------- whole audits


def test_without_data_much_is_not_measured_and_says_what_it_takes():
    result = audit(size, gather((), LIMITS, Key(0)), limits=LIMITS)
    assert result["accuracy"].verdict == result["saturation"].verdict == result["shift"].verdict == "not measured"
    assert "--data" in result["accuracy"].why
    assert "--policy and --judge" in result["over-optimisation by choice"].why
    assert "likes length" in result.flaws


def test_a_sound_reward_and_its_json():
    told: list[Finding] = []
    result = audit(goodness, gather(preferences(), LIMITS, Key(0)), limits=LIMITS, on_finding=told.append)
    assert result.flaws == [], result.summary()
    assert [f.item for f in told] == [f.item for f in result.findings]
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["reward"] == "goodness"
    assert {f["verdict"] for f in plain["findings"]} <= {"sound", "weak", "broken", "not measured"}


def test_the_same_key_gives_the_same_audit():
    a, b = (audit(goodness, gather(preferences(), LIMITS, Key(0)), limits=LIMITS, key=Key(3)).as_dict() for _ in range(2))
    for found in (a, b):
        del found["facts"]
        found["findings"] = [f for f in found["findings"] if f["item"] != "latency"]
    assert a == b


def test_a_reward_that_compares_is_not_changed_alone():
    @groupwise
    def longest(texts: list[str]) -> list[float]:
        return [float(len(t) == max(map(len, texts))) for t in texts]

    result = audit(longest, gather(preferences(), LIMITS, Key(0)), limits=LIMITS)
    assert result["length"].verdict == "not measured"
    assert result["position"].verdict == result["batch"].verdict == "sound"


def test_no_value_at_all_is_an_error():
    @pointwise
    def needs(text: str, keyword: str) -> float:
        return float(keyword in text)

    with pytest.raises(UserError, match=r"gives no value on any response.*keyword"):
        audit(needs, gather(preferences(), LIMITS, Key(0)), limits=LIMITS)


def test_wrong_sizes_and_data():
    with pytest.raises(UserError, match="at least 4 pairs"):
        Limits(pairs=2)
    alone = Preference(Prompt("a", "?"), (Rollout(Prompt("a", "?"), "x"),))
    with pytest.raises(UserError, match="without a pair"):
        pairs_of([alone], 10, Key(0), 0.0)


# ---------------------------------------------------------------- pressing


def test_the_best_of_n_by_a_reward_that_is_the_judge_never_turns():
    policy, prompts = ToyPolicy(spread=0.5), toy_prompts(6)
    drawn = optimise.draw(policy, prompts, 16, Subject(ToyReward("a")).ask, ToyReward("a"), Key(1))
    curve = optimise.by_choice(drawn, Key(2))
    assert [p.label for p in curve.points] == ["best of 1", "best of 2", "best of 4", "best of 8", "best of 16"]
    assert [p.proxy for p in curve.points] == sorted(p.proxy for p in curve.points)
    assert [p.gold for p in curve.points] == [p.proxy for p in curve.points]
    found = optimise.finding(Context(Subject(ToyReward()), Material((), ()), LIMITS, Key(0)), curve)
    assert found.verdict == "sound"


def test_a_judge_that_wants_the_opposite_turns_at_once():
    policy, prompts = ToyPolicy(spread=0.5), toy_prompts(6)

    def other(rollouts):
        return [Score.whole(r, -s.value) for r, s in zip(rollouts, ToyReward("a")(rollouts), strict=True)]

    result = audit(
        ToyReward("a"), gather(preferences(), LIMITS, Key(0)), limits=LIMITS, policy=policy, judge=other, prompts=prompts, samples=16
    )
    assert result["over-optimisation by choice"].flaw == "over-optimised"
    assert result["policy"].flaw == "favours what the judge does not"


def test_learning_against_a_reward_moves_away_and_up():
    policy, prompts = ToyPolicy(), toy_prompts(6)
    start = Frozen(policy)
    cfg = grpo.Config(beta=0.0, steps=12, batch=6, optim=Optim(lr=0.2))
    reward = ToyReward("a")
    recipe = grpo.build(cfg, policy, prompts, reward, Key(0))
    curve = optimise.by_learning(recipe, policy, start, prompts * 10, (reward, reward), Key(1), every=4)
    assert [p.label for p in curve.points] == ["step 0", "step 4", "step 8", "step 12"]
    assert curve.points[-1].kl > curve.points[0].kl
    assert curve.points[-1].proxy > curve.points[0].proxy + 0.5
    assert curve.law is not None
