"""Two views of a scorer, and the terms that contrast them."""

from functools import partial

import pytest
import torch

from guerdon.config import Optim
from guerdon.core import contrastive_loss
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.contrastive import contrasted, with_contrast
from guerdon.learn.learner import learner_for
from guerdon.learn.run import run
from guerdon.learn.verbs import pair_batch
from guerdon.papers import bradley_terry, secrets_rlhf_2
from guerdon.policies.features import FeatureScorer
from guerdon.policies.heads import Scorer
from guerdon.policies.views import TwoViews
from guerdon.testing import check_recipe, toy_pairs
from guerdon.testing.models import small_encoder, small_model
from guerdon.types import Prompt, Rollout


class Letters:
    """How often each letter comes in a text."""

    dim, name = 4, "letters"

    def __call__(self, texts):
        return torch.tensor([[float(t.count(letter)) for letter in "abcd"] for t in texts]).view(-1, 4)


def scorer():
    return FeatureScorer(Letters(), hidden=16, key=Key(1))


PAIRS = toy_pairs(6)


def outputs(views):
    batch = pair_batch(views, PAIRS)
    return views.forward(batch), batch


def test_without_dropout_both_views_are_the_scorer():
    views = TwoViews(scorer(), dropout=0.0, key=Key(0))
    out, batch = outputs(views)
    assert torch.equal(out.score, scorer().forward(batch).score)
    assert torch.equal(out.score, out.extra["second_score"])
    assert torch.equal(out.extra["feature"], out.extra["second_feature"])


def test_views_differ_by_what_is_dropped_and_by_the_version_alone():
    views, twin = (TwoViews(scorer(), dropout=0.3, key=Key(0)) for _ in range(2))
    out, _ = outputs(views)
    whole = scorer().forward(pair_batch(views, PAIRS), frozenset({"feature"})).extra["feature"]
    for name in ("feature", "second_feature"):
        kept = out.extra[name] != 0
        torch.testing.assert_close(out.extra[name][kept], whole[kept] / 0.7)
    assert not torch.equal(out.extra["feature"], out.extra["second_feature"])
    assert torch.equal(outputs(twin)[0].score, out.score)
    twin.version = 3
    assert twin.scorer.version == 3
    assert not torch.equal(outputs(twin)[0].score, out.score)


def test_a_language_model_gives_what_its_head_reads(tmp_path):
    made = Scorer.load(small_model(tmp_path / "model"), key=Key(0))
    texts = [Rollout(Prompt(f"p{i}", "The food?"), text) for i, text in enumerate(("It was great.", "No.", "A dull film: too long."))]
    batch = made.collate(texts)
    out = made.forward(batch, frozenset({"score", "feature"}))
    assert out.extra["feature"].shape == (3, 32)
    torch.testing.assert_close(made.reward_of(out.extra["feature"]), out.score)
    assert torch.equal(out.score, made.forward(batch).score)
    assert "feature" not in made.forward(batch).extra
    encoder = Scorer.load(small_encoder(tmp_path / "encoder"), key=Key(0))
    with pytest.raises(UserError, match="the features of an encoder"):
        encoder.forward(encoder.collate(texts), frozenset({"feature"}))


@pytest.mark.parametrize("what", ["pairs", "difference"])
def test_terms_are_the_loss_on_both_views_and_the_contrast(what):
    views = TwoViews(scorer(), dropout=0.2, key=Key(0))
    out, batch = outputs(views)
    base = bradley_terry.term()
    terms = with_contrast(base, "simcse", what, coef=0.7)
    values = [t.loss(out, batch) for t in terms]
    assert [t.coef for t in terms] == [0.5, 0.5, 0.7]
    second = out.extra["second_score"]
    torch.testing.assert_close(values[1], torch.nn.functional.softplus(-(second[batch.pairs[:, 0]] - second[batch.pairs[:, 1]])))
    one, two = (contrasted(batch, out.extra[name], what) for name in ("feature", "second_feature"))
    assert one.shape == (12, 16)
    if what == "difference":
        assert torch.equal(one[:6], -one[6:])
    torch.testing.assert_close(values[2].mean(), contrastive_loss.simcse(one, two).mean())
    assert terms[2].whole_batch


def test_prototypes_learn_and_are_kept():
    def made():
        return TwoViews(scorer(), dropout=0.2, prototypes=5, key=Key(0))

    views, again = made(), made()
    learner = learner_for(views, with_contrast(bradley_terry.term(), "swav", "pairs", 0.1), Optim(lr=0.1), 2)
    learner.update(pair_batch(views, PAIRS))
    assert views.prototypes is not None and again.prototypes is not None
    assert views.prototypes.shape == (5, 16)
    assert bool((views.prototypes != again.prototypes).any())
    again.load_state_dict(views.state_dict())
    assert torch.equal(views.prototypes, again.prototypes)


@pytest.mark.parametrize(("loss", "what"), [("simcse", "pairs"), ("swav", "difference")])
def test_the_method_runs_with_it_and_survives_a_kill(loss, what, tmp_path):
    cfg = secrets_rlhf_2.Config(voters=1, vote_steps=2, steps=4, batch=4, contrastive=loss, contrast=what, prototypes=3)
    check_recipe(partial(build, cfg), steps=8)
    summary = run(build(cfg), tmp_path / "run")
    assert f"loss/{loss}" in summary.metrics
    assert len((summary.final / "strength.jsonl").read_text().splitlines()) == 12
    assert (summary.final / "head.safetensors").is_file()


def build(cfg):
    return secrets_rlhf_2.build(cfg, scorer(), toy_pairs(12), Key(0))


def test_wrong_names_are_refused():
    with pytest.raises(UserError, match="contrastive loss 'moco'"):
        with_contrast(bradley_terry.term(), "moco", "pairs", 1.0)
    batch = pair_batch(scorer(), PAIRS)
    with pytest.raises(UserError, match="contrast of 'rows'"):
        contrasted(batch, batch.inputs["features"], "rows")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="dropout 1"):
        TwoViews(scorer(), dropout=1.0, key=Key(0))
