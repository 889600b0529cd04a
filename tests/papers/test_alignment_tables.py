"""The rows of the direct-alignment tables: those that do more than hand a view to a formula."""

import copy
import dataclasses

import pytest
import torch

from guerdon import catalog
from guerdon.config import Optim
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.papers.alignment_games import rivals
from guerdon.policies.refs import Ema, Frozen, Lagged
from guerdon.testing import ToyPolicy, ToyReward, check_recipe, toy_pairs, toy_prompts, toy_unpaired
from guerdon.testing.say import same
from guerdon.types import Preference, Prompt, Rollout

ROWS = [card for card in catalog.cards() if card.name != card.module and card.family.startswith("direct alignment")]
SURVEY = {f"direct alignment: {x}" for x in ("data strategy", "learning framework", "constraint mechanism", "model property")}


def build(name, items, policy=None, **settings):
    method = catalog.load(name)
    return method.build(method.Config(**settings), policy or ToyPolicy(spread=0.3), items, Key(0))


def test_every_dimension_of_the_survey_has_rows():
    assert {card.family for card in ROWS} == SURVEY
    assert len(ROWS) >= 45


OFFLINE = [card.name for card in ROWS if "pairs" in card.uses]


@pytest.mark.parametrize("name", OFFLINE)
def test_pairs_are_learnt(name):
    """After some updates on the toy's pairs the loss is lower, and the pairs are in order."""
    settings = {"steps": 40, "batch": 12, "optim": dataclasses.replace(catalog.load(name).Config().optim, lr=0.05, warmup=0)}
    if name == "calibrated_dpo":  # in letters that the toy can write
        settings |= {"statement": "{answer}{confidence}", "confident": ("a",), "unsure": ("b",)}
    recipe = build(name, toy_pairs(12), ToyPolicy(spread=0.3, steps=8), **settings)
    metrics = [recipe.step(t) for t in range(40)]
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 1e-3, name
    if name == "discopop":  # its loss rises with the margin around 0 (see its docstring): pairs go the wrong way
        assert -2.6 * 0.05 < metrics[-1]["rewards/margins"] < -2.1 * 0.05
        return
    assert metrics[-1]["rewards/accuracies"] > 0.9, name


def test_beta_dpo_remembers_margins():
    recipe = build("beta_dpo", toy_pairs(12), steps=6, batch=6)
    for t in range(3):
        recipe.step(t)
    assert set(recipe.state["running"].values) == {"margins/raw", "margins/square"}


def test_bco_takes_its_midpoint_from_the_steps_before():
    recipe = build("bco", toy_unpaired(6), steps=6, batch=6)
    first = recipe.step(0)
    running = recipe.state["running"].values
    assert running["desirable/share"] == first["desirable/share"]
    config = catalog.load("bco").Config()
    assert config.columns(0.0, {}, Key(0), 4) == {"delta": 0.0}
    means = {"desirable/reward": 0.3 * 0.25, "undesirable/reward": -0.1 * 0.75, "desirable/share": 0.25}
    assert config.columns(0.0, means, Key(0), 4)["delta"] == pytest.approx(0.1)  # between 0.3 and -0.1


def test_kto_s_reference_point_is_not_negative():
    recipe = build("kto", toy_unpaired(6), steps=6, batch=6)
    points = [recipe.step(t)["kl/reference_point"] for t in range(6)]
    assert points[0] == 0.0
    assert min(points) >= 0.0


def test_dpo_shift_moves_its_factor():
    def loss_at(schedule, progress):
        config = catalog.load("dpo_shift").Config(schedule=schedule, f=0.75)
        assert config.columns(progress, {}, Key(0), 3) == {"progress": progress}
        view = type(
            "View", (), {"column": lambda self, name: torch.full((2,), progress), "logratio": (torch.zeros(2), torch.full((2,), -100.0))}
        )()
        return config.loss(view)[0].item()

    fixed = loss_at("fixed", 0.5)
    assert loss_at("up", 0.5) == pytest.approx(fixed)  # half-way from .5 to 1
    assert loss_at("down", 0.5) == pytest.approx(fixed)
    assert loss_at("up", 0.0) == pytest.approx(torch.nn.functional.softplus(torch.tensor(-0.01 * 50.0)).item())


def test_tr_dpo_s_reference_follows():
    policy = ToyPolicy(spread=0.3)
    config = catalog.load("tr_dpo").Config
    assert isinstance(config().reference(policy), Ema)
    assert config(alpha=0.3).reference(policy).decay == pytest.approx(0.7)
    assert isinstance(config(update="hard", tau=3).reference(policy), Lagged)
    recipe = build("tr_dpo", toy_pairs(12), steps=3, batch=6, alpha=1.0)  # the whole way at once: the log-ratio is 0 at every step
    assert [recipe.step(t)["rewards/margins"] for t in range(3)] == [0.0] * 3


def test_sdpo_goes_from_easy_to_hard_and_renews_its_reference():
    recipe = build("sdpo", toy_pairs(12), steps=4, batch=6, parts=2)
    before = copy.deepcopy(recipe.state["ref"].state_dict())
    parts = []
    for t in range(4):
        parts.append(recipe.step(t)["part"])
        if t == 0:
            assert same(before, recipe.state["ref"].state_dict())
        if t == 1:  # at the end of the first part
            assert not same(before, recipe.state["ref"].state_dict())
    assert parts == [0, 0, 1, 1]


def test_tdpo_reads_whole_distributions(tmp_path):
    """Its losses on a real model, against logits of policy and reference taken in the open."""
    from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
    from guerdon.policies.text import TextPolicy
    from guerdon.testing.models import small_model

    prompt = Prompt("p", "Say something.")
    pairs = [
        Preference(prompt, (Rollout(prompt, a), Rollout(prompt, b))) for a, b in (("The food was great.", "A film."), ("kind", "too late"))
    ]
    for variant in ("tdpo1", "tdpo2"):
        policy = TextPolicy.load(small_model(tmp_path / variant))
        start, batch = Frozen(policy), pair_batch(policy, pairs)
        optim = Optim(lr=1e-3)
        recipe = build("tdpo", pairs, policy, steps=2, batch=2, variant=variant, optim=optim)
        assert recipe.step(0)["loss"] == pytest.approx(0.693147, abs=1e-5)
        with torch.no_grad():
            p, q = (x.forward(batch, frozenset({"logits"})).extra["logits"].log_softmax(-1) for x in (policy, start))
            ratio = (p - q).gather(2, batch.inputs["actions"][:, :, None])[:, :, 0]
            ratio, kl = row_sum(ratio, batch), row_sum((q.exp() * (q - p)).sum(-1), batch)
        assert (kl > 1e-3).all()
        a, b, kw, kr = chosen(batch, ratio), rejected(batch, ratio), chosen(batch, kl), rejected(batch, kl)
        weight = 1.0 if variant == "tdpo1" else 0.5
        want = torch.nn.functional.softplus(-0.1 * (a - b - weight * (kr - kw))).mean()
        metrics = recipe.step(1)
        assert metrics["loss"] == pytest.approx(want.item(), abs=1e-5)
        assert metrics["kl/chosen"] == pytest.approx(kw.mean().item(), rel=1e-3)


def test_wpo_reads_sums_of_squares(tmp_path):
    """Its weights on a real model, against probabilities taken in the open."""
    from guerdon.learn.verbs import chosen, pair_batch, rejected
    from guerdon.policies.text import TextPolicy
    from guerdon.testing.models import small_model

    prompt = Prompt("p", "Say something.")
    pairs = [
        Preference(prompt, (Rollout(prompt, "a"), Rollout(prompt, "the"))),
        Preference(prompt, (Rollout(prompt, "The"), Rollout(prompt, "is"))),
    ]
    policy = TextPolicy.load(small_model(tmp_path / "m"))
    batch = pair_batch(policy, pairs)
    with torch.no_grad():
        p = policy.forward(batch, frozenset({"logits"})).extra["logits"].softmax(-1)
    own = p.gather(2, batch.inputs["actions"][:, :, None])[:, :, 0]
    aligned = (own / p.square().sum(-1)).log().where(batch.mask, 0.0).sum(1) / batch.mask.sum(1)
    weight = (chosen(batch, aligned) + rejected(batch, aligned)).exp().clamp(max=1)
    metrics = build("wpo", pairs, policy, steps=1, batch=2).step(0)
    assert metrics["weights"] == pytest.approx(weight.mean().item(), rel=1e-3)
    assert metrics["loss"] == pytest.approx((weight * 0.693147).mean().item(), rel=1e-3)


def test_reference_free_rows_hold_one_model():
    for card in ROWS:
        config = catalog.load(card.name).Config
        if getattr(config, "REFERENCE", True):
            continue
        assert config().reference(ToyPolicy()) is None, card.name


@pytest.mark.parametrize("name", ["iterative_dpo", "online_dpo", "rso", "sppo", "xpo", "nash_md"])
def test_sampled_rows_earn_more(name):
    """Forty updates on fresh answers, and the toy writes more of the letter that is paid for."""
    method = catalog.load(name)
    sizes = {"rounds": 20, "prompts_per_round": 6, "steps_per_round": 2, "batch": 12} if name != "nash_md" else {"steps": 40, "batch": 6}
    config = dataclasses.replace(method.Config(), **sizes)
    sampling = dataclasses.replace(config.sampling, n=max(4, config.sampling.n) if name != "xpo" else 4)
    config = dataclasses.replace(config, sampling=sampling, optim=dataclasses.replace(config.optim, lr=0.1, warmup=0))
    recipe = method.build(config, ToyPolicy(), toy_prompts(), ToyReward(), Key(1))
    rewards = [m["reward"] for m in (recipe.step(t) for t in range(40)) if "reward" in m]
    assert sum(rewards[-4:]) / 4 > rewards[0] + 0.15, rewards


def test_a_round_without_pairs_changes_nothing():
    method = catalog.load("iterative_dpo")
    config = method.Config(rounds=1, prompts_per_round=2, steps_per_round=1, sampling=dataclasses.replace(method.Config().sampling, n=2))
    recipe = method.build(config, ToyPolicy(spread=0.1), toy_prompts(), ToyReward(letter="z"), Key(0))  # nobody earns anything
    before = copy.deepcopy(recipe.state["learner"].state_dict())
    assert recipe.step(0)["skipped"] == 1.0
    assert same(before, recipe.state["learner"].state_dict())


def test_rivals_are_others_of_the_group_and_lean_to_the_reference():
    group = torch.tensor([0, 0, 0, 1, 2, 2])
    ratio = torch.tensor([0.0, 5.0, 0.0, 1.0, 0.0, 0.0])
    drawn = torch.stack([rivals(ratio, group, 1.0, Key(i)) for i in range(50)])
    assert (group[drawn] == group).all()
    assert (drawn[:, [0, 1, 2, 4, 5]] != torch.tensor([0, 1, 2, 4, 5])).all()
    assert (drawn[:, 3] == 3).all()  # alone
    assert (drawn[:, 0] == 1).float().mean() > 0.9
    assert 0.2 < (torch.stack([rivals(ratio, group, 0.0, Key(i)) for i in range(50)])[:, 0] == 1).float().mean() < 0.8


def test_coupled_rows_refuse_to_be_split():
    optim = dataclasses.replace(catalog.load("aot").Config().optim, micro_units=2)
    for name in ("aot", "aot_unpaired", "beta_dpo"):
        with pytest.raises(UserError, match="couples the rows of a batch"):
            build(name, toy_pairs(4), steps=1, optim=optim)


def test_micro_batches_leave_a_row_of_lists_as_it_is():
    from guerdon.testing import toy_pools

    ends = []
    for units in (None, 2):
        policy = ToyPolicy(spread=0.3)
        optim = dataclasses.replace(catalog.load("nca").Config().optim, micro_units=units, lr=0.05, warmup=0)
        recipe = build("nca", toy_pools(5), policy, steps=3, batch=5, optim=optim)
        for t in range(3):
            recipe.step(t)
        ends.append(policy.logits.detach())
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_frozen_is_the_usual_reference():
    assert isinstance(catalog.load("ipo").Config().reference(ToyPolicy()), Frozen)


def test_a_round_s_pairs_survive_a_kill_in_its_middle():
    method = catalog.load("sppo")
    config = method.Config(rounds=1, prompts_per_round=6, steps_per_round=4, batch=3)
    check_recipe(lambda: method.build(config, ToyPolicy(spread=0.2), toy_prompts(), ToyReward(), Key(0)), steps=4)
