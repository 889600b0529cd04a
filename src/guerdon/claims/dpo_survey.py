"""The catalogue in its little world: does robust DPO bear wrong labels, and do the objectives do to likelihoods what they say?

With 30 % wrong labels and 200 updates robust DPO orders more of the held-out pairs than DPO in every seed, in points: 7.6 5.5 5.6 (seeds
10 to 12, on which the margin was set), 11.0 5.2 1.2 (0 to 2), 6.2 10.9 1.4 (3 to 5); by 5.8 and 6.2 on average, and now and then hardly.
After 60 updates on right labels each of the twenty objectives tried here orders at least 75 % (the least: .79), and those that are made to
keep the chosen response likely (dpop, rpo, cpo, cal_dpo, nca, bco) leave it likelier than DPO does, all six in every seed. cDPO and IPO are
not claimed to bear wrong labels. Of the whole catalogue (`guerdon run dpo_survey --seed 10`) three stay below 75 %: discopop (.10; its loss
rises with the margin around 0), rso (.65) and rrhf (.66, one seed).
"""

from __future__ import annotations

from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.papers import dpo_survey
from guerdon.papers._survey_toy import world
from guerdon.types import Claim, Trial

CLAIM = Claim(
    method="robust DPO (eps 0.3), 200 updates on 256 pairs of which about 30 % are labelled the wrong way round",
    baseline="DPO on the same pairs in the same order",
    metric="share of held-out pairs that the log-ratio to the start puts in order",
    direction="up",
    margin=0.027,
    setting="22,000-weight Llama; chosen answers say one word of sixteen with chance .35, rejected ones with .05",
)
KEEPING = ("dpop", "rpo", "cpo", "cal_dpo", "nca", "bco")
OTHERS = ("cdpo", "hinge", "ipo", "ln_dpo", "r_dpo", "simpo", "simper", "apo_zero", "exo", "dpo_shift", "slic_hf", "f_dpo", "robust_dpo")


def trial(seed: int) -> Trial:
    key = Key(seed).fold("claim", "dpo_survey")
    cfg = dpo_survey.Config(steps=60)
    here = world(key, size=cfg.pairs, held_out=1000, base_steps=cfg.base_steps)
    clean, flipped = here.data(0.0), here.data(0.3)
    long = dpo_survey.Config(steps=200, batch=64)
    noisy = {name: here.ratios(dpo_survey.trained(name, here, flipped, long)) for name in ("dpo", "robust_dpo")}
    found = {name: here.ratios(dpo_survey.trained(name, here, clean, cfg)) for name in ("dpo", *KEEPING, *OTHERS)}
    accuracy = {name: float(preference.accuracy(*ratios).mean()) for name, ratios in found.items()}
    kept = [found[name][0].mean() - found["dpo"][0].mean() for name in KEEPING]
    notes = {
        "objectives": len(found),
        "below_0.75": sum(x < 0.75 for x in accuracy.values()),
        "lowest": min(accuracy.values()),
        "dpo": accuracy["dpo"],
        "keep_the_chosen": sum(float(x) > 0 for x in kept),
        "chosen_above_dpo_at_least": float(min(kept)),
    }
    right = {name: preference.accuracy(*ratios).tolist() for name, ratios in noisy.items()}
    return Trial(right["dpo"], right["robust_dpo"], notes)
