"""Rewards under shift: accuracies by hand, what is left out, lists, the mean in which every distribution counts the same."""

import json
import math

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.core.stats import Interval
from guerdon.errors import UserError
from guerdon.evaluate import tables
from guerdon.evaluate.shift import comparison, judged
from guerdon.types import Preference, Prompt, Rollout, Score

# Log-ratios of the three public pairs, times beta 0.1: policy (-12, -8.5, -20) and (-14, -7, -25), reference (-13, -9, -19) and
# (-13.5, -7.5, -22).
IMPLICIT = {"w0": 0.1, "w1": 0.05, "w2": -0.1, "l0": -0.05, "l1": 0.05, "l2": -0.3}


def pair(win: str, lose: str) -> Preference:
    prompt = Prompt(win, "?")
    return Preference(prompt, (Rollout(prompt, win), Rollout(prompt, lose)))


def by(scores):
    """A reward that knows its texts; NaN abstains."""
    return lambda rollouts: [Score.abstain("no") if math.isnan(x := scores[r.content]) else Score.whole(r, x) for r in rollouts]


PAIRS = [pair(f"w{i}", f"l{i}") for i in range(3)]


def test_ties_count_one_half():
    perfect = {name: float(name[0] == "w") for name in IMPLICIT}
    found = judged("home", PAIRS, [by(perfect), by(IMPLICIT)])
    assert found.accuracy.tolist() == pytest.approx([1.0, 2.5 / 3], abs=1e-12)
    assert (found.pairs.tolist(), found.left_out) == ([1.0, 1.0, 1.0], 0)


def test_a_missing_score_leaves_its_pairs_out_for_both():
    found = judged("home", PAIRS, [by({**IMPLICIT, "l1": math.nan}), by(IMPLICIT)])
    assert found.accuracy.tolist() == [1.0, 1.0]  # the tie is gone, for the second reward too
    assert found.left_out == 1
    with pytest.raises(UserError, match=r"no pair to compare \(3 lack a score\)"):
        judged("home", PAIRS, [by(dict.fromkeys(IMPLICIT, math.nan))])


def ranked(name: str, ratings: list[float]) -> Preference:
    prompt = Prompt(name, "?")
    return Preference(prompt, tuple(Rollout(Prompt(name, "?", {"rating": x}), f"{name}{i}") for i, x in enumerate(ratings)))


def test_a_list_stands_for_its_pairs():
    item = ranked("a", [3.0, 2.5, 1.0])
    scores = {"a0": 1.0, "a1": 2.0, "a2": 0.0}
    assert judged("all", [item], [by(scores)]).right.tolist() == [[2.0]]
    wide = judged("wide", [item], [by(scores)], gap=1.0)  # 3 and 2.5 are too close
    assert (wide.right.tolist(), wide.pairs.tolist()) == ([[2.0]], [2.0])
    near = ranked("b", [1.0, 0.9, 0.8])  # gives no pair at all
    assert judged("one", [near, item], [by({**scores, "b0": 0.0, "b1": 0.0, "b2": 0.0})], gap=1.0).pairs.tolist() == [2.0]


def test_every_distribution_counts_the_same_and_the_better_one_labels():
    good, bad = {f"{side}{i}": float(side == "w") for side in "wl" for i in range(40)}, {}
    for i in range(40):  # wrong on every fourth pair
        bad |= {f"w{i}": float(i % 4 > 0), f"l{i}": 0.5}
    pairs = [pair(f"w{i}", f"l{i}") for i in range(40)]
    home = judged("home", pairs[1:4], [by(good), by(bad)])
    away = [judged("small", pairs[:4], [by(good), by(bad)]), judged("large", pairs, [by(good), by(bad)])]
    always_wrong = judged("wrong", pairs[::4], [by(good), by(bad)])
    rows, labeller = comparison([home], [*away, always_wrong], Key(0))
    assert [row["distribution"] for row in rows] == ["home", "small", "large", "wrong", "mean of the shifted", "shifted minus home"]
    assert [row["implicit"][0] for row in rows] == pytest.approx([1.0, 0.75, 0.75, 0.0, 0.5, -0.5])
    assert [row["drop"][0] for row in rows] == pytest.approx([0.0, 0.25, 0.25, 1.0, 0.5, 0.5])
    assert rows[4]["pairs"] == 54
    assert labeller == "explicit"
    low, high = rows[2]["drop"][1:]
    assert low < 0.25 < high
    deviation = math.sqrt(0.25 * 0.75 / 40)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.2)
    swapped = [judged(x, pairs, [by(bad), by(good)]) for x in ("here", "there")]
    assert comparison(swapped[:1], swapped[1:], Key(0))[1] == "implicit"
    same = [judged(x, pairs, [by(bad), by(bad)]) for x in ("here", "there")]
    assert comparison(same[:1], same[1:], Key(0))[1] == "either"
    assert comparison([home], [], Key(0))[1] == "either"


def test_tables_say_the_same_to_people_and_programs(tmp_path):
    rows = [{"name": "a", "x": Interval(0.5, 0.25, 0.75), "n": 3}, {"name": "bcd", "x": None, "n": None}]
    tables.write(tmp_path, rows, title="T", notes="N.", labeller="either")
    lines = (tmp_path / tables.TABLE).read_text().split("\n")
    assert lines[4] == "| a    | 0.500 [0.250, 0.750] |   3 |"
    assert len({len(line) for line in lines[2:6]}) == 1
    data = json.loads((tmp_path / "table.json").read_text())
    assert data["labeller"] == "either"
    assert data["rows"][0] == {"name": "a", "x": 0.5, "x_low": 0.25, "x_high": 0.75, "n": 3}
    assert (tmp_path / "table.csv").read_text().split("\n")[1].strip() == "a,0.5,0.25,0.75,3"
    assert tables.markdown([]) == ""
    assert tables.show(float("nan")) == "-"


def test_draws_are_the_same_ones_for_both_rewards():
    found = judged("home", PAIRS, [by(IMPLICIT), by(IMPLICIT)])
    drawn = found.draws(Key(1), samples=50)
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert drawn[:, 0].std() > 0
