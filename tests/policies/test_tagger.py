"""Taggers: what is read, where tags stand, labels from marked spans, saving, and learning to find wrong sentences."""

import pytest
import torch
from transformers import AutoModelForTokenClassification

from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.domains import scorer_folder
from guerdon.errors import UserError
from guerdon.learn.little import finish, new_policy
from guerdon.papers.fine_grained_rlhf import fit
from guerdon.policies.tagger import Tagger
from guerdon.rewards.resolve import resolve_rewards
from guerdon.rewards.segments import SegmentReward
from guerdon.testing import check_reward
from guerdon.types import Prompt, Rollout

WORDS = ("question:", "answer:", "context:", "q", "p", "a", "b", ".")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    new_policy(WORDS, 0, max_new=4, width=32, layers=1).save(place)
    return place


def tagger(folder, **settings):
    return Tagger.load(folder, key=Key(1), **settings)


def answer(text, errors=None, **meta):
    return Rollout(Prompt("p", "q q", meta | ({} if errors is None else {"errors": errors})), text)


def test_separators_stand_behind_or_before(folder):
    words = lambda ids: [("<pad>", "<end>", *WORDS)[i] for i in ids]
    ids, at = tagger(folder).ids(answer("a . b ."))
    assert words(ids) == ["question:", "q", "q", "answer:", "a", ".", "<end>", "b", ".", "<end>"] and at == [6, 9]
    ids, at = tagger(folder, before=True).ids(answer("a . b .", passages=["p", "p"]))
    assert words(ids) == ["question:", "q", "q", "context:", "p", "p", "answer:", "<end>", "a", ".", "<end>", "b", "."] and at == [7, 10]
    ids, at = tagger(folder, max_length=7, context=False).ids(answer("a . b .", passages="p"))
    assert words(ids) == ["answer:", "a", ".", "<end>", "b", ".", "<end>"] and at == [3, 6]
    with pytest.raises(UserError, match="the limit is 6"):
        tagger(folder, max_length=6).ids(answer("a . b ."))


def test_tags_are_those_of_plain_transformers_alone_or_in_company(folder):
    model, rows = tagger(folder, rows=2), [answer("a . b ."), answer("a"), answer(""), answer("b b b . a .")]
    plain = AutoModelForTokenClassification.from_pretrained(folder, num_labels=3)
    plain.load_state_dict(model.model.state_dict())
    plain.eval()
    for row, tags in zip(rows, model.tags(rows), strict=True):
        ids, at = model.ids(row)
        with torch.no_grad():
            want = plain(input_ids=torch.tensor([ids])).logits[0, at]
        torch.testing.assert_close(tags, want, atol=1e-5, rtol=0)
    assert model.tags([]) == []
    check_reward(SegmentReward(model), [answer("a . b ."), answer("b")])


def test_labels(folder):
    text = "a . b . a b ."
    marked = [{"start": 6, "end": 7, "category": "facts"}, {"start": 8, "end": 11, "category": "style"}]
    assert tagger(folder).labels(answer(text, marked)) == [2, 0, 0]
    assert tagger(folder, errors=("facts",), bad=1).labels(answer(text, marked)) == [2, 1, 2]
    assert tagger(folder).labels(answer(text, [])) == [2, 2, 2]
    assert tagger(folder).labels(answer(text)) == [-100] * 3
    batch = tagger(folder).collate([answer(text, marked), answer("a .")])
    assert batch.extra["tag"].tolist() == [[2, 0, 0], [-100] * 3] and batch.mask.tolist() == [[True] * 3, [True, False, False]]


def test_wrong_settings(folder):
    for wrong in ({"bad": 3}, {"bad": 2}, {"kind": "word"}, {"rows": 0}):
        with pytest.raises(UserError):
            tagger(folder, **wrong)
    with pytest.raises(UserError, match="where it is wrong"):
        fit(tagger(folder), [answer("a .")], Key(0))
    with pytest.raises(UserError, match="does not give 'logp'"):
        tagger(folder).forward(tagger(folder).collate([answer("a")]), frozenset({"logp"}))


def test_it_learns_which_sentences_are_wrong_and_is_read_back(folder, tmp_path):
    draw, items = torch.Generator().manual_seed(0), []
    for _ in range(60):
        kinds = torch.randint(2, (3,), generator=draw).tolist()
        text = " ".join(("a .", "b .")[k] for k in kinds)
        items.append(answer(text, [{"start": 4 * i, "end": 4 * i + 1} for i, k in enumerate(kinds) if k]))
    model = tagger(folder)
    recipe = fit(model, items[:40], Key(0), batch=10, steps=40, optim=Optim(lr=1e-2))
    finish(recipe)
    assert [x[:, 2] > x[:, 0] for x in model.tags(items[40:])] and recipe.step(40)["accuracy"] == 1
    for row, tags in zip(items[40:], model.tags(items[40:]), strict=True):
        assert [2 if good else 0 for good in (tags[:, 2] > tags[:, 0]).tolist()] == model.labels(row)
    model.errors = ("facts",)
    model.save(tmp_path / "tagger")
    again = Tagger.load(tmp_path / "tagger")
    assert (again.kind, again.errors, again.bad) == ("sentence", ("facts",), 0)
    for one, other in zip(model.tags(items[:3]), again.tags(items[:3]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    spec = f"{tmp_path / 'tagger'}=0.5"  # as `--reward` has it
    named = resolve_rewards([spec], load_scorer=scorer_folder).reward(items[:3])
    assert [s.value for s in named] == [0.5 * s.value for s in SegmentReward(model)(items[:3])]
    assert named[0].parts["tagger/segments"] == 3
