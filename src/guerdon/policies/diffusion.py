"""Diffusion policies: a noise-predicting UNet on images. One decision is one denoising step, or one noise level of a given image."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guerdon._need import need
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.types import ABSENT, Batch, Origin, Outputs, Preference, Prompt, Rollout

LOG_2PI = math.log(2 * math.pi)


class DiffusionPolicy(nn.Module):
    """A UNet that predicts the noise `eps` in `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`, with a class id (or nothing) as prompt.

    `logp` has two meanings, one for each kind of rollout; `collate` tells them apart by `Rollout.actions`:

    - drawn by `sample` (actions given): decision t is a denoising step, `logp_t = log N(x_{t+1}; mu(x_t), sigma_t^2)` summed over pixels.
      Decision 0 is the pure noise that an image starts from: nobody chose it, so its mask is False.
    - images given (no actions): decision t is a noise level, `logp_t = -mean((eps_theta(x_t) - eps)^2)` over the pixels: minus the
      denoising error. Level and noise are drawn in `collate`, and rows with the same `group` share them: the two images of a pair do, and
      so does a reference that reads the same batch.

    unet: a diffusers `UNet2DModel`, or anything called like one. scheduler: a diffusers scheduler; only its table of `abar` and its
    clipping range are read. steps: denoising steps of `sample`. eta: 1 is DDPM's ancestral noise, 0 is DDIM (deterministic: no decision is
    left to learn from). levels: noise levels drawn for each given image. rows_at_once: images denoised side by side.
    key: names the stream that levels and noise are drawn from, new ones for each `version` (number of updates).
    """

    abar: Tensor
    grid: Tensor

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        *,
        steps: int = 20,
        eta: float = 1.0,
        levels: int = 1,
        rows_at_once: int = 256,
        key: Key = Key(0),
    ) -> None:
        super().__init__()
        trained, kind = len(scheduler.alphas_cumprod), scheduler.config.get("prediction_type", "epsilon")
        if kind != "epsilon":
            raise UserError(f"this model predicts {kind!r}, expected 'epsilon' (the noise)", hint="take a noise-predicting model")
        if not 2 <= steps <= trained or not 0 <= eta <= 1 or levels < 1:
            raise UserError(f"steps {steps}, eta {eta}, levels {levels}: expected 2 <= steps <= {trained}, 0 <= eta <= 1, levels >= 1")
        # Dropout off for good: it would differ between the two images of a pair and between the policy and its reference.
        self.unet, self.scheduler = unet.eval(), scheduler
        self.steps, self.eta, self.levels, self.rows_at_once, self.key = steps, eta, levels, rows_at_once, key
        self.version = 0
        self.classes: int | None = unet.config.get("num_class_embeds")
        size, channels = unet.config["sample_size"], unet.config["in_channels"]
        self.shape = (channels, *((size, size) if isinstance(size, int) else tuple(size)))
        self.clip = scheduler.config.get("clip_sample_range", 1.0) if scheduler.config.get("clip_sample", False) else None
        self.register_buffer("abar", scheduler.alphas_cumprod.double(), persistent=False)
        grid = (torch.arange(steps, 0, -1, dtype=torch.float64) * trained / steps).round().long() - 1
        self.register_buffer("grid", grid, persistent=False)

    # ------------------------------------------------------------ denoising

    def noise_at(self, x: Float[Tensor, "M C H W"], t: Tensor, classes: Tensor | None) -> Float[Tensor, "M C H W"]:
        """`eps_theta(x, t, class)`; t `(M,)`, levels counted from 0 (nearly clean)."""
        return self.unet(x, t, class_labels=classes).sample if classes is not None else self.unet(x, t).sample

    def transition(self, x: Float[Tensor, "M C H W"], k: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean `(M, C, H, W)` and standard deviation `(M,)` of the latent after step k `(M,)`; the last step is deterministic.

        `mu = sqrt(abar') x0 + sqrt(1 - abar' - sigma^2) e`, `sigma^2 = eta^2 (1 - abar') / (1 - abar) (1 - abar / abar')`, with abar at
        this grid level, abar' at the next one (1 after the last), x0 the predicted image, clipped, and e the noise that leads from it to x.
        Source: Song et al. 2021 (DDIM), arXiv 2010.02502, equations 12 and 16; eta = 1 is the DDPM posterior (Ho et al. 2020).
        """
        a = self.abar[self.grid[k]]
        after = torch.where(k + 1 < self.steps, self.abar[self.grid[(k + 1).clamp(max=self.steps - 1)]], 1.0)
        sigma = self.eta * ((1 - after) / (1 - a) * (1 - a / after)).sqrt()
        a, b, up, side = (_tall(v, x) for v in (a.sqrt(), (1 - a).sqrt(), after.sqrt(), (1 - after - sigma**2).clamp(min=0).sqrt()))
        eps = self.noise_at(x, self.grid[k], classes)
        x0 = (x - b * eps) / a
        if self.clip is not None:
            x0 = x0.clamp(-self.clip, self.clip)
            eps = (x - a * x0) / b
        return up * x0 + side * eps, sigma.to(x.dtype)

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], n: int, key: Key) -> list[Rollout]:
        """n images of each class, prompt by prompt; `group` is the prompt's index.

        content: the image `(C, H, W)`, about -1 to 1. actions: the latents `(steps, C H W)` before each denoising step. Each image draws
        from a stream of its own, named by `key`, the prompt's id and its number, so it does not depend on what else is in the call.
        """
        rows = [(g, p, key.fold("denoise", p.id, i)) for g, p in enumerate(prompts) for i in range(n)]
        parts = [rows[i : i + self.rows_at_once] for i in range(0, len(rows), self.rows_at_once)]
        return [rollout for part in parts for rollout in self._denoise(part)]

    def _denoise(self, rows: Sequence[tuple[int, Prompt, Key]]) -> list[Rollout]:
        generators, classes = [key.generator() for _, _, key in rows], self._classes([p for _, p, _ in rows])

        def noise() -> Tensor:  # drawn on the CPU: the same image on every device
            return torch.stack([torch.randn(self.shape, generator=g) for g in generators]).to(self.device, self.dtype)

        x = noise()
        latents, logp = [x], [_gaussian(x, torch.zeros_like(x), x.new_ones(len(x)))]
        for k in range(self.steps):
            mean, sigma = self.transition(x, torch.full((len(x),), k, device=x.device), classes)
            x = mean
            if k + 1 < self.steps:
                x = mean + _tall(sigma, x) * noise()
                latents.append(x)
                logp.append(_gaussian(x, mean, sigma) if self.eta > 0 else x.new_zeros(len(x)))
        actions, density = torch.stack(latents, 1).flatten(2).cpu(), torch.stack(logp, 1).cpu()
        mask = torch.arange(self.steps) > (0 if self.eta > 0 else self.steps)
        return [
            Rollout(p, x[i].cpu(), actions[i], density[i], mask, group=g, origin=Origin(self.version, str(key)))
            for i, (g, p, key) in enumerate(rows)
        ]

    # ------------------------------------------------------------ learning

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """inputs of sampled rollouts: `latents (N, T, C H W)`, `last (N,)` the last step's index; of given images: `images (N, C, H, W)`,
        `noise (N, T, C, H, W)`, `level (N, T)`. Both: `classes (N,)`, unless the model is unconditional.

        To learn from the pixels of an image that was sampled, drop its steps: `rollout.with_(actions=None, logp=None, mask=None)`.
        """
        given = [r.actions is None for r in rollouts]
        if any(given) and not all(given):
            raise UserError(
                f"{sum(given)} given images and {len(given) - sum(given)} sampled ones in one batch, expected one kind",
                hint="make sampled ones given by rollout.with_(actions=None, logp=None, mask=None)",
            )
        classes = self._classes([r.prompt for r in rollouts])
        inputs = {} if classes is None else {"classes": classes}
        group = torch.tensor([r.group for r in rollouts])
        if all(given):
            images = torch.stack([self._image(r) for r in rollouts])
            level, noise = self._draw(group)
            inputs |= {"images": images.to(self.device, self.dtype), "noise": noise, "level": level}
            mask, old_logp = torch.ones(len(rollouts), self.levels, dtype=torch.bool), ABSENT
        else:
            inputs["latents"] = torch.stack([r.actions for r in rollouts if r.actions is not None]).to(self.device, self.dtype)
            if inputs["latents"].shape[1] != self.steps:
                raise UserError(
                    f"rollouts of {inputs['latents'].shape[1]} steps, the policy takes {self.steps}", hint="load it with the same steps"
                )
            mask = torch.stack([r.mask for r in rollouts if r.mask is not None])
            known = [r.logp for r in rollouts if r.logp is not None]
            old_logp = torch.stack(known).to(self.device) if len(known) == len(rollouts) else ABSENT
        unit = torch.arange(len(rollouts), device=self.device)
        return Batch(inputs, mask.to(self.device), group.to(self.device), unit, old_logp=old_logp)

    def _draw(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels `(N, T)` and noise `(N, T, C, H, W)`, the same for rows of one group, new after every update."""
        ids, row = group.unique(return_inverse=True)
        generator = self.key.fold("noise", self.version).generator()
        level = torch.randint(len(self.abar), (len(ids), self.levels), generator=generator)
        noise = torch.randn(len(ids), self.levels, *self.shape, generator=generator)
        return level[row].to(self.device), noise[row].to(self.device, self.dtype)

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs:  # type: ignore[override]
        """`logp (N, T)`, as the class says; `entropy (N, T)` of sampled rollouts only, a constant of the schedule."""
        if "images" in batch.inputs:
            if "entropy" in need:
                raise UserError("given images have no entropy: no distribution was sampled from", hint="leave the entropy term out")
            return Outputs(logp=self._denoising_logp(batch))
        return self._step_logp(batch, entropy="entropy" in need)

    def _denoising_logp(self, batch: Batch) -> Tensor:
        images, noise, level = (batch.inputs[k] for k in ("images", "noise", "level"))
        n, t = level.shape
        flat, eps = level.flatten(), noise.flatten(0, 1)
        a = self.abar[flat]
        x = _tall(a.sqrt(), eps) * images.repeat_interleave(t, 0) + _tall((1 - a).sqrt(), eps) * eps
        predicted = self.noise_at(x, flat, _repeat(batch.inputs.get("classes"), t))
        return -(predicted - eps).square().flatten(1).mean(1).view(n, t)

    def _step_logp(self, batch: Batch, entropy: bool) -> Outputs:
        latents = batch.inputs["latents"]
        n, t, d = latents.shape
        if self.eta == 0:
            raise UserError("eta 0 is deterministic: its steps have no log-probability", hint="sample with eta > 0, for instance 1")
        x = latents.view(n, t, *self.shape)
        k = torch.arange(t - 1, device=x.device).repeat(n)
        mean, sigma = self.transition(x[:, :-1].flatten(0, 1), k, _repeat(batch.inputs.get("classes"), t - 1))
        steps = _gaussian(x[:, 1:].flatten(0, 1), mean, sigma).view(n, t - 1)
        first = _gaussian(x[:, 0], torch.zeros_like(x[:, 0]), x.new_ones(n))
        spread = d * (torch.cat([x.new_ones(n, 1), sigma.view(n, t - 1)], 1).log() + 0.5 * (1 + LOG_2PI)) if entropy else ABSENT
        return Outputs(logp=torch.cat([first[:, None], steps], 1), entropy=spread)

    def _classes(self, prompts: Sequence[Prompt]) -> Tensor | None:
        if self.classes is None:
            return None
        for p in prompts:
            if not isinstance(p.content, int) or not 0 <= p.content < self.classes:
                raise UserError(f"prompt {p.id!r} holds {p.content!r}, expected a class id from 0 to {self.classes - 1}")
        return torch.tensor([p.content for p in prompts], device=self.device)

    def _image(self, rollout: Rollout) -> Tensor:
        image = rollout.content
        if not isinstance(image, Tensor) or tuple(image.shape) != self.shape:
            what = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise UserError(
                f"rollout of {rollout.prompt.id!r} holds {what}, expected an image tensor of shape {self.shape}, values in [-1, 1]"
            )
        return image

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def save(self, folder: Path) -> None:
        """What diffusers' `DDPMPipeline.from_pretrained` reads (`unet/`, `scheduler/`, `model_index.json`), and `sampling.json`."""
        diffusers = need("diffusers", extra="diffusion")
        folder = Path(folder)
        diffusers.DDPMPipeline(self.unet, self.scheduler).save_pretrained(folder)
        (folder / "sampling.json").write_text(json.dumps({"steps": self.steps, "eta": self.eta}) + "\n")


def _tall(v: Tensor, like: Tensor) -> Tensor:
    """`(M,)` as `(M, 1, 1, 1)`, in the type of the images."""
    return v.to(like.dtype).view(-1, 1, 1, 1)


def _repeat(classes: Tensor | None, times: int) -> Tensor | None:
    return None if classes is None else classes.repeat_interleave(times)


def _gaussian(x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """`log N(x; mean, sigma^2)`, summed over the pixels: `(M,)`."""
    d = x[0].numel()
    return -0.5 * ((x - mean) / _tall(sigma, x)).square().flatten(1).sum(1) - d * (sigma.log() + 0.5 * LOG_2PI)


# ---------------------------------------------------------------- loading


def load_policy(model: str, data: str = "digits", key: Key = Key(0), **settings: Any) -> DiffusionPolicy:
    """A fresh small UNet for 8x8 digits (`model` = "unet": 160k parameters), or a diffusers folder or hub name.

    The folder (or hub repository) holds a `UNet2DModel`, at its top or in `unet/`, and perhaps a scheduler beside it.
    settings: `steps`, `eta`, `levels`, `rows_at_once` of DiffusionPolicy; without them, what `DiffusionPolicy.save` wrote.
    """
    diffusers = need("diffusers", extra="diffusion")
    if model == "unet":
        _digits_only(data)
        scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        return DiffusionPolicy(small_unet(key), scheduler, key=key, **settings)
    kept = Path(model) / "sampling.json"
    settings = {**(json.loads(kept.read_text()) if kept.is_file() else {}), **settings}
    try:
        unet = _from_pretrained(diffusers.UNet2DModel, model, "unet")
    except (OSError, ValueError) as error:
        raise UserError(
            f"no UNet2DModel in {model!r} ({str(error).splitlines()[0]})", hint="give 'unet', a diffusers folder or a hub name"
        ) from None
    try:
        scheduler = _from_pretrained(diffusers.DDPMScheduler, model, "scheduler")
    except OSError:
        scheduler = diffusers.DDPMScheduler()
    return DiffusionPolicy(unet, scheduler, key=key, **settings)


def _from_pretrained(kind: Any, model: str, subfolder: str) -> Any:
    if Path(model).is_dir():
        return kind.from_pretrained(model, subfolder=subfolder if (Path(model) / subfolder).is_dir() else None)
    try:
        return kind.from_pretrained(model, subfolder=subfolder)
    except OSError:
        return kind.from_pretrained(model)


def small_unet(key: Key, *, classes: int = 10, size: int = 8, widths: tuple[int, ...] = (16, 32)) -> nn.Module:
    """A fresh class-conditional `UNet2DModel` for grey images, without attention; weights drawn from the key."""
    diffusers = need("diffusers", extra="diffusion")
    n = len(widths)
    with torch.random.fork_rng(devices=[]):  # diffusers initialises from the global stream; it is put back afterwards
        torch.manual_seed(key.fold("unet").number)
        return diffusers.UNet2DModel(
            sample_size=size,
            in_channels=1,
            out_channels=1,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * n,
            up_block_types=("UpBlock2D",) * n,
            norm_num_groups=8,
            num_class_embeds=classes,
            add_attention=False,
        )


def digits() -> tuple[Float[Tensor, "M 1 8 8"], Tensor]:
    """scikit-learn's 1,797 handwritten digits as images in [-1, 1] (ink is 1), and their classes `(M,)`."""
    raw = need("sklearn.datasets", extra="diffusion").load_digits()
    return torch.tensor(raw.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(raw.target)


def load_prompts(data: str = "digits") -> list[Prompt]:
    """The ten classes."""
    _digits_only(data)
    return [Prompt(f"digits/{c}", c) for c in range(10)]


def load_demos(data: str = "digits") -> list[Rollout]:
    """Every real digit under its class; each is a group of its own, so each gets noise of its own."""
    _digits_only(data)
    prompts = load_prompts(data)
    return [Rollout(prompts[int(c)], image, group=i) for i, (image, c) in enumerate(zip(*digits(), strict=True))]


def load_pairs(data: str = "digits", key: Key = Key(0)) -> list[Preference]:
    """Two real digits of one class, the one with more ink preferred; each digit is in one pair. margin: difference of mean ink."""
    _digits_only(data)
    images, classes = digits()
    pairs = []
    for prompt in load_prompts(data):
        of_class = images[classes == prompt.content]
        order = key.fold("pairs", prompt.id).permutation(len(of_class))
        for a, b in zip(of_class[order[::2]], of_class[order[1::2]], strict=False):
            first, second = (a, b) if a.mean() >= b.mean() else (b, a)
            margin = float(first.mean() - second.mean())
            pairs.append(Preference(prompt, (Rollout(prompt, first), Rollout(prompt, second)), margin=margin, source="digits/ink"))
    return pairs


def _digits_only(data: str) -> None:
    if data != "digits":
        raise UserError(
            f"data {data!r}, expected 'digits', the only image data set at hand",
            hint="for others, build Rollouts with image tensors in Python",
        )
