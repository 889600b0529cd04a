"""Does REFINE turn a model towards what it can complete from memory, where next-token prediction turns to what is a little likelier?

Texts with garden paths (`_garden_path.py`): behind a key that comes again stands its value of four tokens (45 %) or a digression whose
first word is always the same (55 %). Greedy decoding after next-token prediction takes the likelier word; it is judged by the text's own
value, so that 0.45 is about the most. All arms go on from one start, on the same texts, with the same moments of AdamW.

Exploration (seeds 10, 11, 12): exact match .111 .099 .143 after next-token prediction, .148 .225 .155 with REFINE, and .153 .199 .153 at
the untouched start: next-token prediction fell below its start in all three, and against the start REFINE gained -.005 +.026 +.002 only.
Reward of draws at held-out cuts .663 .655 .655 and .677 .669 .670; loss of held-out texts .734 .743 .752 and .747 .756 .766 nats a token,
.013 more in each. The chance of a digression's first word moves by a few hundredths of seed noise, which is as large as the effect: single
seeds may tie, and the margin is small.
Once, with 150 updates in place of 100 and a longer start (seed 10): .121, .144 and .247.
Confirmation (seeds 0, 1, 2): exact match .160 .097 .125 and .152 .155 .205, from .104 .167 .147: +.043 on average, and one seed lost.
Reward at cuts rose in all three (+.010 +.014 +.023), as did the loss (+.013 +.013 +.012).
Seeds 3, 4, 5: .146 .148 .115 and .198 .200 .174, from .165 .141 .089: +.054. Reward +.020 +.010 +.015, loss +.017 +.011 +.013.
So five seeds of six gained, +.049 on average over next-token prediction; and five (not the same) over the untouched start, +.045.
Measured after the claim was fixed, on seeds 10, 11, 12 (docs/refine.md has these and other models and texts): cuts drawn uniformly .163
.235 .182; hybrid reward .147 .194 .138; cosine .099 .151 .109; one rollout, z-score in the text, lam_rl 1, .167 .156 .171; a z-score in
each prefix .027 .046 .083, below next-token prediction in all three.
"""

from __future__ import annotations

from typing import Any

from guerdon.core.rng import Key
from guerdon.learn.continuing import Continuations
from guerdon.types import Claim, Trial

from . import _garden_path as path

CLAIM = Claim(
    method="100 further updates of next-token prediction and REFINE (8 cuts a text, 4 rollouts of 4 tokens, lam_rl 2, the batch's spread)",
    baseline="100 further updates of next-token prediction on the same texts",
    metric="share of a held-out text's repeated keys after which greedy decoding writes the text's own value of four tokens",
    direction="up",
    margin=0.005,
    setting="50,000-weight DeltaNet; texts of 80 tokens in which a key is followed by its value, or (55 %) by a digression",
)
HOW = Continuations(chunks=8, tokens=4, n=4, last=4, likeness="binary", scale="batch")
ARMS: dict[str, dict[str, Any]] = {"ntp": {}, "refine": {"lam_rl": 2.0, "continuations": HOW}}


def measures(
    found: dict[str, Any], seed: int, *, texts: int = 256, digress: float = path.DIGRESS, **size: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Of every policy: for each held-out text the share of values written; and means for the notes: exact match, nats a token, the reward
    of draws at cuts that the start chose, and the chance of a digression."""
    held_out = path.texts(Key(seed).fold("held out"), texts, digress, **size)
    tasks = path.cut(found["start"], held_out[:64], HOW, Key(seed).fold("tasks"))
    hits, notes = {}, {}
    for name, policy in found.items():
        hits[name] = path.per_text(path.exact(policy, held_out))
        notes[f"exact_{name}"] = sum(hits[name]) / len(hits[name])
        notes[f"loss_{name}"] = path.loss(policy, held_out)
        notes[f"reward_{name}"] = path.sampled_reward(policy, tasks, HOW, Key(seed).fold("drawn"))
        notes[f"stop_{name}"] = path.chance_of_stop(policy, held_out[:64])
    return hits, notes


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "refine")
    start = path.pretrained(seed, key)
    more = path.texts(key.fold("more"), path.BATCH * 100, path.DIGRESS)
    hits, notes = measures(path.continued(start.policy, start.moments, more, ARMS, key), seed)
    return Trial(hits["ntp"], hits["refine"], notes)
