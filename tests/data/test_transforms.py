"""What happens to preferences on their way to training, by hand."""

import copy
import json

import pytest

from guerdon import assemble, cli
from guerdon.core.rng import Key
from guerdon.data import load, transforms
from guerdon.data.transforms import agreeing, agreement, apply, chunks, deduped, drop_ties, flipped, least_gap, shorter, truncated
from guerdon.errors import UserError
from guerdon.testing import ToyReward, toy_pairs, toy_pools
from guerdon.types import Preference, Prompt, Rollout


def pair(chosen="good one", rejected="bad one", id="p", meta=None, **more):
    prompt = Prompt(id, "Say something.", meta or {})
    return Preference(prompt, (Rollout(prompt, chosen), Rollout(prompt, rejected)), **more)


def test_filters():
    clear, near, tie, even = pair(margin=2.0, label=0.9), pair(margin=0.5, label=0.6), pair(margin=0.0), pair(label=0.5)
    assert drop_ties([clear, tie, near, even]) == [clear, near]
    assert least_gap([clear, near, tie], 0.5) == [clear, near]
    assert agreement([clear, near, tie], 0.6) == [clear, near, tie]
    assert agreement([clear, near, even], 0.61) == [clear]
    with pytest.raises(UserError, match="pair 'p' has no ratings"):
        least_gap([clear, even], 1.0)
    pools = toy_pools(3)
    assert drop_ties(pools) == least_gap(pools, 9.0) == pools


def test_a_second_judge_must_agree():
    pairs = toy_pairs(6)
    wrong = [transforms.swapped(p) for p in pairs[:2]]
    assert agreeing([*wrong, *pairs[2:]], ToyReward()) == pairs[2:]
    assert agreeing(toy_pools(4), ToyReward()) == toy_pools(4)
    assert agreeing(pairs, ToyReward("z")) == []  # all alike to this judge


def test_lengths_and_cuts():
    short, long = pair("one two", "three"), pair("one  two\nthree", "x")
    assert shorter([short, long], 2) == [short]
    assert shorter([short, long], 7, length=lambda r: len(r.content)) == [short]
    (kept, cut) = truncated([short, long], 2)
    assert kept is short
    assert [r.content for r in cut.ranked] == ["one  two", "x"]
    assert [r.end for r in cut.ranked] == ["length", "stop"]
    assert truncated([pair("a b c", "a b d")], 2) == []
    with pytest.raises(UserError, match="only plain text is cut"):
        truncated([pair([{"role": "assistant", "content": "hi"}], "x")], 2)


def test_every_comparison_once():
    a, again, back = pair(id="a"), pair(id="b", margin=3.0), pair("bad one", "good one")
    assert deduped([a, again, back, a]) == [a, back]


def test_noise_is_a_function_of_the_seed_and_the_pair():
    pairs = toy_pairs(400)
    before = copy.deepcopy(pairs)
    noisy = flipped(pairs, 0.3, key=Key(1))
    turned = [a.ranked[0].content == b.ranked[1].content for a, b in zip(pairs, noisy, strict=True)]
    assert 0.22 < sum(turned) / 400 < 0.38
    assert [bool(p.prompt.meta.get("flipped")) for p in noisy] == turned
    assert all(r.prompt == p.prompt for p in noisy for r in p.ranked)
    assert [p.margin for p in noisy] == [p.margin for p in pairs]
    assert noisy == flipped(pairs, 0.3, key=Key(1)) != flipped(pairs, 0.3, key=Key(2))
    assert flipped(pairs[100:], 0.3, key=Key(1)) == noisy[100:]  # its neighbours do not matter
    assert flipped(pairs, 0.0, key=Key(1)) == pairs == before
    assert all(p.prompt.meta["flipped"] for p in flipped(pairs, 1.0, key=Key(1)))
    more = flipped(pairs, 0.5, key=Key(1))  # more noise flips those, and others
    assert all(b.prompt.meta.get("flipped") for a, b in zip(noisy, more, strict=True) if a.prompt.meta.get("flipped"))


def test_what_belongs_to_a_response_goes_with_it():
    [noisy] = flipped([pair(meta={"score_chosen": 5, "rejected_rating": 2, "level": "x"}, margin=3.0)], 1.0, key=Key(0))
    assert noisy.prompt.meta == {"score_rejected": 5, "chosen_rating": 2, "level": "x", "flipped": True}
    with pytest.raises(UserError, match="only pairs are flipped"):
        flipped(toy_pools(1), 1.0, key=Key(0))


def test_parts_from_easy_to_hard():
    pairs = [pair(id=str(m), margin=m) for m in (1.0, 3.0, 2.0, 5.0, 4.0)]
    assert [[p.prompt.id for p in part] for part in chunks(pairs, 2)] == [["5.0", "4.0", "3.0"], ["2.0", "1.0"]]
    assert [len(part) for part in chunks(pairs, 9)] == [1] * 5
    assert chunks(pairs, 1, ease=lambda p: -(p.margin or 0)) == [sorted(pairs, key=lambda p: p.margin or 0)]


def test_by_name():
    pairs = [pair(margin=float(m), id=str(m), chosen=f"good {m}") for m in range(6)]
    found, notes = apply([*pairs, pairs[5]], ["dedupe", "drop_ties", "least-gap=2", "flip=1"], key=Key(0))
    assert [p.prompt.id for p in found] == ["2", "3", "4", "5"]
    assert notes == [
        "dedupe: 6 of 7 preferences left",
        "drop_ties: 5 of 6 preferences left",
        "least-gap=2: 4 of 5 preferences left",
        "flip=1: 4 of 4 preferences left, 4 of them changed",
    ]
    assert apply(pairs, [], key=Key(0)) == (pairs, [])
    assert apply(pairs, ["agreement=1", "max_words=2", "truncate=2"], key=Key(0))[0] == pairs


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("drop_tie", "unknown transform 'drop_tie'\nhint: did you mean 'drop_ties'"),
        ("dedupe=1", "dedupe takes no value\nhint: write dedupe"),
        ("flip", "transform 'flip', expected a share of pairs in .0, 1.\nhint: write flip=VALUE"),
        ("flip=1.5", "expected a share"),
        ("truncate=0", "expected a number of words"),
        ("least_gap=x", "expected a difference of ratings"),
        ("least_gap=9", "transform least_gap=9 leaves none of 3 preferences"),
    ],
)
def test_wrong_specs(spec, match):
    with pytest.raises(UserError, match=match):
        apply([pair(margin=1.0)] * 3, [spec], key=Key(0))


def test_only_preferences():
    with pytest.raises(UserError, match="were given a Prompt"):
        apply([Prompt("p", "x")], ["drop_ties"], key=Key(0))  # type: ignore[list-item]


# ---------------------------------------------------------------- from the command line


@pytest.fixture
def data(tmp_path):
    rows = [{"prompt": f"q {i}", "chosen": f"right {i}", "rejected": f"wrong {i}", "margin": i} for i in range(1, 9)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_run_applies_them_and_says_so(data, tmp_path, capsys):
    method, cfg = assemble.configure("dpo", {"data": data, "transforms": "least_gap=3,flip=0.5", "batch": 2})
    prepared = assemble.prepare(method, cfg)
    want, notes = apply(load(data, "pairs").items, ["least_gap=3", "flip=0.5"], key=Key(0).fold("transforms"))
    assert prepared.data["pairs"].items == want
    assert len(want) == 6
    assert prepared.data["pairs"].facts["transforms"] == notes
    assert cli.main(["check", "dpo", "--data", data, "--transforms", "least_gap=3,flip=0.5"]) == 0
    assert "least_gap=3: 6 of 8 preferences left" in " ".join(capsys.readouterr().out.split())


def test_a_method_without_preferences_refuses_them(data):
    method, cfg = assemble.configure("grpo", {"transforms": "drop_ties"})
    with pytest.raises(UserError, match="grpo learns from prompts"):
        assemble.prepare(method, cfg)
    method, cfg = assemble.configure("dpo", {"data": data, "transforms": "drop_tiez"})
    with pytest.raises(UserError, match="did you mean 'drop_ties'"):
        assemble.prepare(method, cfg)


def test_a_converted_file_is_what_a_run_would_see(data, tmp_path, capsys):
    out = tmp_path / "noisy.jsonl"
    assert cli.main(["convert", data, str(out), "--transforms", "least_gap=3, flip=0.5", "--layout", "hh-rlhf", "--seed", "4"]) == 0
    said = capsys.readouterr().out
    assert "8 pairs (plain) from 8 rows, layout 'preference'" in said
    assert "least_gap=3: 6 of 8 preferences left" in said
    assert f"6 lines: {out}" in said
    method, cfg = assemble.configure("dpo", {"data": data, "transforms": "least_gap=3,flip=0.5", "seed": 4})
    seen = assemble.prepare(method, cfg).data["pairs"].items
    found = load(out, "pairs")
    assert found.detected.layout == "hh-rlhf"
    assert [[r.content for r in p.ranked] for p in found.items] == [[r.content for r in p.ranked] for p in seen]
    assert [p.prompt.meta.get("flipped", False) for p in found.items] == [p.prompt.meta.get("flipped", False) for p in seen]


def test_converting_what_does_not_fit(data, tmp_path, capsys):
    out = tmp_path / "x.jsonl"
    assert cli.main(["convert", data, str(out), "--layout", "hh"]) == 2
    assert "unknown layout of preferences 'hh'" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main(["convert", data, str(out), "--lists", "--layout", "pool"]) == 0
    assert json.loads(out.read_text().splitlines()[0])["responses"] == ["right 1", "wrong 1"]
