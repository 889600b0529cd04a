"""Heads with several outputs: plain folders, equal scores after reading back."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guerdon.core import comparisons, quantile
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.frozen import FrozenScorer
from guerdon.policies.heads import Scorer
from guerdon.policies.lora import Lora
from guerdon.policies.readout import KINDS, First, Gaussian, General, Quantiles, Readout, Steps, Weighted, readout
from guerdon.policies.writing import WritingScorer
from guerdon.testing.models import small_encoder, small_model
from guerdon.types import Prompt, Rollout

ROWS = [
    Rollout(Prompt("a", "The food?"), "Great and very kind.", group=0),
    Rollout(Prompt("a", "The food?"), "No.", group=0),
    Rollout(Prompt("b", "What is 12 plus 30?"), "The answer is 42, and 4 times 7 makes 28.", group=1),
]
MADE = [
    Weighted((0.5, -1.0, 2.0), ("helpfulness", "verbosity", "correctness")),
    Steps(5),
    Quantiles(7, "cvar", share=0.3),
    Gaussian((1.0, 0.5), caution=1.0),
    First(2),
    General(2, tau=0.5),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("encoder"))


def shaken(scorer):
    """With a readout that has learnt something."""
    with torch.no_grad():
        for x in scorer.readout.state_dict().values():
            x.add_(0.1 * torch.arange(1.0, x.numel() + 1).view(x.shape))
    return scorer


def test_every_kind_is_described_and_read_back():
    assert {type(made) for made in MADE} | {Readout} == set(KINDS.values())
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    for made in MADE:
        again = readout(json.loads(json.dumps(made.described())))
        again.load_state_dict(made.state_dict())
        assert torch.equal(again(x[:, : made.labels]), made(x[:, : made.labels]))
    with pytest.raises(UserError, match="unknown readout 'quantile'"):
        readout({"kind": "quantile"})
    with pytest.raises(UserError, match="no setting 'number_of'"):
        readout({"kind": "quantiles", "number_of": 3})
    with pytest.raises(UserError, match="2 weights"):
        Weighted((1.0, 2.0), ("one",))


def test_what_they_read():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert Weighted((1, 0, 0, -1))(x).item() == -3
    assert First(4)(x).item() == 1
    assert Quantiles(4)(x).item() == 2.5
    assert Quantiles(4, "cvar", share=0.5)(x).item() == 1.5
    assert torch.equal(Quantiles(4, "spread", k=2.0)(x), quantile.less_spread(x, 2.0))
    gaussian = Gaussian((1.0, 2.0), caution=1.0)
    assert gaussian(x).item() == pytest.approx(5 - (torch.tensor(3.0).exp() + 4 * torch.tensor(4.0).exp()).sqrt().item(), rel=1e-6)
    assert torch.equal(gaussian.columns(x)["log_var"], x[:, 2:])
    steps = Steps(5)
    assert bool((steps.cuts.diff() > 0).all())
    torch.testing.assert_close(steps.cuts, torch.tensor([-1.5, -0.5, 0.5, 1.5]))


def test_the_point_score_is_the_mean_over_opponents():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    for unit in (True, False):
        general = General(2, tau=0.5, unit=unit)
        assert not general(x).any()  # nobody has been met
        general.meet(x)
        mine = general.embed(x)
        m = comparisons.duels(mine) / 0.5
        torch.testing.assert_close(general(x), m.mean(1))


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.kind)
@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_folder_reads_back_and_is_plain_transformers(made, kind, base, encoder, tmp_path):
    place, rows = (base, ROWS) if kind == "causal" else (encoder, ROWS[:2])
    scorer = shaken(Scorer.load(place).with_head(copy.deepcopy(made), Key(1)))
    scorer.normalise(rows)
    scorer.save(tmp_path)
    again = Scorer.load(tmp_path)
    assert again.readout.described() == made.described()
    torch.testing.assert_close(again.score(rows), scorer.score(rows), rtol=0, atol=1e-6)
    torch.testing.assert_close(again.outputs(rows), scorer.outputs(rows), rtol=0, atol=1e-6)
    assert (again.mean, again.std) == (scorer.mean, scorer.std)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.num_labels == made.labels
    with torch.no_grad():
        ids = torch.tensor([scorer.ids(rows[0])])
        usual = model(input_ids=ids, **({} if kind == "causal" else scorer._segments(ids))).logits
    torch.testing.assert_close(scorer.outputs(rows[:1]), usual, rtol=0, atol=1e-5)
    assert tokenizer is not None


def test_an_adapter_with_several_outputs_survives_save_merge_and_reload(base, tmp_path):
    made = Weighted((1.0, 2.0))
    scorer = Scorer.load(base, lora=Lora(2)).with_head(made, Key(0))
    with torch.no_grad():
        for p in scorer.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    scorer.save(tmp_path)
    for place in (tmp_path, tmp_path / "adapter"):
        torch.testing.assert_close(Scorer.load(place).score(ROWS), scorer.score(ROWS), rtol=0, atol=1e-5)


def test_a_head_is_kept_where_it_is_read_in_that_way_already(base):
    scorer = Scorer.load(base).with_head(First(2), Key(0))
    weight = scorer.head_weight.clone()
    assert torch.equal(scorer.with_head(First(2), Key(1)).head_weight, weight)
    assert not torch.equal(scorer.with_head(First(2), Key(1), fresh=True).head_weight, weight)
    assert scorer.head_weight.shape == (2, weight.shape[1])
    assert float(weight.detach().std()) == pytest.approx((weight.shape[1] + 1) ** -0.5, rel=0.5)


def test_several_labels_without_a_readout_are_refused(base, tmp_path):
    scorer = Scorer.load(base).with_head(First(2), Key(0))
    scorer.save(tmp_path)
    config = json.loads((tmp_path / "reward_config.json").read_text())
    del config["readout"]
    (tmp_path / "reward_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="gives 2 numbers a text, a reward model gives 1"):
        Scorer.load(tmp_path)
    general = Scorer.load(base).with_head(General(2), Key(0))
    general.save(tmp_path / "general")
    (tmp_path / "general" / "readout.safetensors").unlink()
    with pytest.raises(UserError, match=r"no readout\.safetensors"):
        Scorer.load(tmp_path / "general")


def test_what_a_readout_learns_is_in_the_state(base):
    scorer = Scorer.load(base).with_head(Steps(4), Key(0))
    assert any(p is scorer.readout.first for p in scorer.parameters())
    state = copy.deepcopy(scorer.state_dict())
    shaken(scorer)
    changed = scorer.readout.cuts
    scorer.load_state_dict(state)
    assert not torch.equal(scorer.readout.cuts, changed)


# ---------------------------------------------------------------- frozen bodies


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_frozen_body_gives_the_same_scores_and_is_read_once(kind, base, encoder, tmp_path, monkeypatch):
    place, rows = (base, ROWS) if kind == "causal" else (encoder, ROWS[:2])
    whole, frozen = Scorer.load(place), FrozenScorer.load(place)
    torch.testing.assert_close(frozen.score(rows), whole.score(rows), rtol=0, atol=1e-5)
    assert len(frozen.parameters()) == (1 if kind == "causal" else 2)
    read = []
    monkeypatch.setattr(FrozenScorer, "_read", lambda self, ids, length: read.append(ids))
    frozen.forward(frozen.collate(rows)).score.sum().backward()
    assert not read
    assert all(p.grad is not None for p in frozen.parameters())
    whole.forward(whole.collate(rows)).score.sum().backward()
    torch.testing.assert_close(frozen.parameters()[-1].grad, whole.parameters()[-1].grad, rtol=1e-4, atol=1e-5)
    monkeypatch.undo()
    frozen.save(tmp_path)
    torch.testing.assert_close(Scorer.load(tmp_path).score(rows), frozen.score(rows), rtol=0, atol=1e-6)


def test_a_frozen_body_takes_heads_and_no_adapters(base):
    frozen = FrozenScorer.load(base).with_head(First(2), Key(0))
    assert [tuple(p.shape) for p in frozen.parameters()] == [tuple(frozen.head_weight.shape)]
    with pytest.raises(UserError, match="frozen body and adapters"):
        FrozenScorer.load(base, lora=Lora(2))


# ---------------------------------------------------------------- writing


def test_a_writing_scorer_gives_the_log_probabilities_of_the_language_model(base):
    from guerdon.policies.text import TextPolicy

    scorer, policy = WritingScorer.load(base), TextPolicy.load(base)
    batch = scorer.collate(ROWS)
    out = scorer.forward(batch, frozenset({"score", "logp"}))
    torch.testing.assert_close(out.score, Scorer.load(base).forward(batch).score, rtol=0, atol=1e-5)
    theirs = policy.collate(ROWS)
    logp = policy.forward(theirs).logp
    for i in range(len(ROWS)):
        ours, other = out.logp[i][batch.mask[i]], logp[i][theirs.mask[i]]
        n = min(len(ours), len(other))  # the scorer also reads what the template writes after the stop
        torch.testing.assert_close(ours[:n], other[:n], rtol=0, atol=1e-4)
    (out.logp.sum() + out.score.sum()).backward()
    assert all(p.grad is not None for p in scorer.parameters())
