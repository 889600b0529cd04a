"""As many comparisons in a prefix tree and among independent pairs: what is left to know of reward differences?

(a), the claim: rewards are a Gaussian process in which responses go together as far as they share segments. Per item stands a random pair
of responses of the pool: the variance of its difference after 120 comparisons over that before. Exploration, seeds 10, 11, 12: .51 .51
.51 among independent pairs, .07 .07 .06 in the tree. The gain is the prior's: it says that responses with a common prefix are alike.
Confirmation: .513 and .066 on seeds 0, 1, 2, .511 and .070 on 3, 4, 5; it holds on both.

(b), in the notes, not shown: that a reward model which could share what it learns of prefixes orders new pairs better. Rewards of four
segments, each worth what it and the two before it say; 300 labels as noisy as Bradley and Terry have it, a small transformer. Held-out
pairs ordered by the true reward, seeds 10, 11, 12: fitted to independent pairs .60 .60 .56 of those and .53 .52 .60 of pairs in trees;
fitted to trees .54 .64 .54 and .52 .56 .53. No advantage of trees, and not much learnt of either.
"""

from __future__ import annotations

import itertools

import torch

from guerdon.config import Optim
from guerdon.core.inference_distance import posterior_variance
from guerdon.core.rng import Key
from guerdon.learn.little import finish, new_policy, new_scorer
from guerdon.papers import bradley_terry
from guerdon.types import Claim, Preference, Prompt, Rollout, Trial

from ._pairs import right_by_score

CLAIM = Claim(
    method="120 comparisons of leaves of one prefix tree",
    baseline="120 comparisons of independent pairs",
    metric="variance of a reward difference in the pool after the comparisons, over that before",
    direction="down",
    margin=0.22,
    setting="rewards are a Gaussian process whose covariance is the number of segments shared; noise variance .25, branching 3, depth 4",
)
BRANCHING, DEPTH, COMPARISONS, ASKED, NOISE = 3, 4, 120, 400, 0.25
LETTERS, LABELS = tuple(f"s{i}" for i in range(12)), 300
Path = tuple[int, ...]


def shared(a: Path, b: Path) -> int:
    """Segments that two paths have in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


def two_of(n: int, count: int, key: Key) -> torch.Tensor:
    """Pairs of different numbers below n, `(count, 2)`."""
    drawn = torch.rand(count, n, generator=key.generator())
    return drawn.argsort(1)[:, :2]


def remaining(covariance: torch.Tensor, compared: torch.Tensor, key: Key) -> list[float]:
    """Of random pairs of the pool: variance of their difference after the comparisons, over that before."""
    asked = two_of(len(covariance), ASKED, key)
    none = torch.zeros(0, 2, dtype=torch.long)
    after, before = (posterior_variance(covariance, seen, asked, noise=NOISE) for seen in (compared, none))
    return (after / before).tolist()


def uncertainty(key: Key) -> tuple[list[float], list[float]]:
    """Independent pairs, and pairs of leaves of a full tree, as many."""
    chain = DEPTH * torch.eye(2 * COMPARISONS, dtype=torch.float64)
    couples = torch.arange(2 * COMPARISONS).view(-1, 2)
    leaves = list(itertools.product(range(BRANCHING), repeat=DEPTH))
    tree = torch.tensor([[float(shared(a, b)) for b in leaves] for a in leaves], dtype=torch.float64)
    compared = two_of(len(leaves), COMPARISONS, key.fold("pairs"))
    return remaining(chain, couples, key.fold("chain")), remaining(tree, compared, key.fold("tree"))


# ---------------------------------------------------------------- a small transformer, rewards that depend on what stands before


class World:
    """Segments of one letter; what a letter is worth depends on the two before it (normal, deviation 1)."""

    def __init__(self, key: Key) -> None:
        self.worth = torch.randn(*(len(LETTERS) + 1,) * 2, len(LETTERS), generator=key.generator())
        self.prompt = Prompt("p", f"{LETTERS[0]} ")

    def reward(self, path: Path) -> float:
        seen = (len(LETTERS), len(LETTERS), *path)
        return sum(float(self.worth[seen[i], seen[i + 1], x]) for i, x in enumerate(path))

    def pair(self, a: Path, b: Path, luck: float) -> Preference:
        """The labelled pair: the better one first, as often as Bradley and Terry say."""
        gap = torch.tensor(self.reward(a) - self.reward(b))
        best, other = (a, b) if luck < float(torch.sigmoid(gap)) else (b, a)
        return Preference(self.prompt, tuple(Rollout(self.prompt, " ".join(LETTERS[i] for i in p)) for p in (best, other)))


def grown(key: Key) -> list[Path]:
    """The leaves of a tree whose nodes have `BRANCHING` different letters each."""
    paths: list[Path] = [()]
    for _ in range(DEPTH):
        paths = [(*p, letter) for p in paths for letter in key.fold(*p, "children").permutation(len(LETTERS))[:BRANCHING]]
    return paths


def labelled(world: World, key: Key, *, tree: bool, n: int, lucky: bool = True) -> list[Preference]:
    """n labels: of pairs of leaves of trees (120 each), or of independent responses. lucky: with the noise of labels."""
    out: list[Preference] = []
    for i in range(n):
        if tree:
            leaves = grown(key.fold("tree", i // COMPARISONS))
            a, b = two_of(len(leaves), 1, key.fold("pair", i))[0].tolist()
            first, second = leaves[a], leaves[b]
        else:
            first, second = (tuple(torch.randint(len(LETTERS), (DEPTH,), generator=key.fold(s, i).generator()).tolist()) for s in "ab")
        if first != second:
            luck = float(torch.rand((), generator=key.fold("luck", i).generator()))
            gap = world.reward(first) > world.reward(second)
            out.append(world.pair(first, second, luck if lucky else (-1.0 if gap else 2.0)))
    return out


def accuracy(world: World, pairs: list[Preference], seed: int, tests: dict[str, list[Preference]], key: Key) -> dict[str, float]:
    """Share of held-out pairs that a reward model fitted to these labels orders by the true reward."""
    scorer = new_scorer(new_policy(LETTERS, seed, max_new=DEPTH + 1), seed)
    cfg = bradley_terry.Config(batch=50, steps=120, optim=Optim(lr=2e-3, warmup=10, decay="linear"))
    finish(bradley_terry.build(cfg, scorer, pairs, key))
    return {name: sum(right_by_score(scorer, test)) / len(test) for name, test in tests.items()}


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "tree_preferences")
    chain, tree = uncertainty(key)
    world = World(key.fold("world"))
    kinds = {"chain": False, "tree": True}
    same = labelled(world, key.fold("labels"), tree=True, n=LABELS)
    tests = {kind: labelled(world, key.fold("test"), tree=is_tree, n=600, lucky=False) for kind, is_tree in kinds.items()}
    notes: dict[str, float] = {}
    for kind, is_tree in kinds.items():
        pairs = same if is_tree else labelled(world, key.fold("labels"), tree=False, n=LABELS)
        notes |= {f"accuracy_{kind}_on_{name}": x for name, x in accuracy(world, pairs, seed, tests, key).items()}
    return Trial(chain, tree, notes)
