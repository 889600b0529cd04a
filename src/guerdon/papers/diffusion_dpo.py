"""Diffusion-DPO: learn from pairs of images without a reward model and without sampling.

Problem: DPO needs log pi(image | prompt), and a diffusion model's likelihood is a sum over every denoising path: out of reach.
Idea: bound it from below by the denoising error, one noise level at a time. With one level and one noise shared by both images and by
the reference, `-log sigmoid(-beta/2 [(m_w - m_l) - (f_w - f_l)])`, where m is the policy's and f the reference's mean squared error
in predicting the noise. That is DPO itself with `logp = -error` and half the beta, so the objective here *is* DPO's.
Left out: Stable Diffusion's text encoder and latent space (`UNet2DModel`s on pixels only), and its 851,000 pairs. beta is the paper's for
Stable Diffusion 1.5; errors are means over pixels, so another image size may want another one. The published learning rate (1e-8 times a
batch of 2048, 2000 steps) is for that model; the defaults here are for 160,000 weights. `pretrain` is ours: a fresh network first learns to
denoise `demos` with the same learner, so that the method runs on a laptop without a download; 0 steps: the model is trained already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guerdon.config import Checked, Optim, knob
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.learn.learner import learner_for
from guerdon.learn.offline import offline
from guerdon.learn.verbs import pair_batch
from guerdon.papers import dpo
from guerdon.policies.refs import Frozen, Lagged
from guerdon.types import Metrics, Paper, Policy, Preference, Recipe, Rollout, Term, decisions

PAPER = Paper(
    title="Diffusion Model Alignment Using Direct Preference Optimization",
    arxiv="2311.12908",
    year=2023,
    family="preference",
    idea="DPO on denoising errors, at a noise that both images and the reference share",
    uses=("pairs", "demos", "core.preference.dpo"),
    claim="Trained on pairs of a model's own digits, it draws more of what was preferred, and still the digit asked for",
    domain="diffusion",
    full_size="guerdon run diffusion_dpo --model google/ddpm-cifar10-32 --pretrain.steps 0 --optim.lr 2e-5 --optim.warmup 500 --batch 2048 "
    "--steps 2000",
)


@dataclass(frozen=True)
class Pretrain(Checked):
    """Learning to denoise real images before any preference."""

    steps: int = knob(400, "denoising updates; 0: the model is trained already", unit="updates", at_least=0)
    batch: int = knob(64, "images an update", unit="images", at_least=1)
    optim: Optim = Optim(lr=4e-3, warmup=20, decay="cosine")


@dataclass(frozen=True)
class Config(Checked):
    model: str = knob("unet", "the policy to start from: unet (fresh and small), a diffusers folder, or a hub name")
    data: str = knob("digits", "preference pairs and images: digits, where more ink is preferred")
    beta: float = knob(2000.0, "strength of the leash to the starting policy, per mean squared error", above=0)
    batch: int = knob(32, "pairs a step", unit="pairs", at_least=1)
    steps: int = knob(60, "updates on pairs", unit="updates", at_least=1)
    optim: Optim = Optim(lr=3e-5, warmup=10)
    pretrain: Pretrain = Pretrain()


denoising = Term("denoising", lambda o, b: -o.logp, over=decisions, reduce=token_mean)
"""Mean squared error of the predicted noise (Ho et al. 2020, arXiv 2006.11239, equation 14)."""


def pretraining(cfg: Pretrain, policy: Policy, demos: Sequence[Rollout], key: Key) -> Recipe:
    """Learning to denoise."""
    learner = learner_for(policy, [denoising], cfg.optim, cfg.steps)
    return offline(learner=learner, items=demos, collate=policy.collate, batch=cfg.batch, steps=cfg.steps, key=key.fold("pretrain"))


def build(cfg: Config, policy: Policy, pairs: Sequence[Preference], demos: Sequence[Rollout], key: Key) -> Recipe:
    first = cfg.pretrain.steps
    ref = Lagged(policy, every=first + cfg.steps) if first else Frozen(policy)
    tuning = offline(
        learner=learner_for(policy, [dpo.term(0.5 * cfg.beta)], cfg.optim, cfg.steps),
        items=pairs,
        collate=lambda items: pair_batch(policy, items),
        batch=cfg.batch,
        steps=cfg.steps,
        ref=ref,
        key=key,
    )
    if not first:
        return tuning
    warm = pretraining(cfg.pretrain, policy, demos, key)

    def step(t: int) -> Metrics:
        if t >= first:
            return tuning.step(t - first)
        metrics = warm.step(t)
        if t + 1 == first:
            ref.tick(0)  # its only renewal: the leash is to the pre-trained policy
        return metrics

    return Recipe({"pretrain": warm.state["learner"], **tuning.state}, step, first + cfg.steps, final=tuning.final)
