"""Control policies for gymnasium environments: one decision is one tick, one prompt is one initial state."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guerdon._need import need
from guerdon.core.rng import Key
from guerdon.errors import UserError, nearest
from guerdon.types import ABSENT, Batch, Origin, Outputs, Prompt, Rollout

PREFIX = "env:"


@dataclass(frozen=True)
class Trajectory:
    """One episode, as rewards and critics read it.

    observations: `(T, D)`, what was seen before each action. rewards: `(T,)`, the environment's own, after each action.
    last: `(D,)`, what was seen after the final action. terminated: True when the task ended, False when time ran out.
    """

    observations: Float[Tensor, "T D"]
    rewards: Float[Tensor, " T"]
    last: Float[Tensor, " D"]
    terminated: bool

    def __str__(self) -> str:
        return f"{len(self.rewards)} ticks, return {float(self.rewards.sum()):g}, {'terminated' if self.terminated else 'out of time'}"


class ControlPolicy(nn.Module):
    """A multi-layer perceptron that acts in a gymnasium environment.

    Discrete actions: a categorical over the output logits. Box actions: a diagonal Gaussian with a learnt, state-independent standard
    deviation; `logp` belongs to the action drawn, which is clipped to the bounds only on its way into the environment.

    env: the id of a registered environment. hidden: widths of the hidden layers (tanh). critic: also learn a value head, a second
    perceptron of the same widths. max_steps: episodes are cut here if the environment has no limit of its own. key: of the initial weights.
    """

    def __init__(
        self, env: str, *, hidden: Sequence[int] = (64, 64), critic: bool = False, max_steps: int = 1000, key: Key = Key(0)
    ) -> None:
        super().__init__()
        space, actions = _spaces(env)
        self.env, self.hidden, self.max_steps, self.version = env, tuple(hidden), max_steps, 0
        self.discrete = hasattr(actions, "n")
        self.first_action = int(actions.start) if self.discrete else 0
        if not self.discrete and type(actions).__name__ != "Box":
            raise UserError(
                f"{env} has actions {actions}, expected Discrete or Box", hint="wrap the environment so that its actions are one of both"
            )
        observed = need("gymnasium", extra="control").spaces.flatdim(space)
        width = int(actions.n) if self.discrete else math.prod(actions.shape)
        self.actor = _mlp([observed, *self.hidden, width], 0.01, key.fold("actor"))
        self.critic = _mlp([observed, *self.hidden, 1], 1.0, key.fold("critic")) if critic else None
        self.log_std = None if self.discrete else nn.Parameter(torch.zeros(width))

    # ------------------------------------------------------------ acting

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], n: int, key: Key, *, greedy: bool = False) -> list[Rollout]:
        """n episodes from each initial state, prompt by prompt; `group` is the prompt's index.

        `Prompt.content` seeds the environment, so the n episodes start alike (and, where the environment is random, meet the same luck).
        Each episode draws its actions from a stream of its own, named by `key`, the prompt's id and its number: but for rounding it
        does not depend on what else is in the call. Episodes run side by side, one forward pass per tick for those still going.
        greedy: take the most probable action (Gaussian: the mean) instead of drawing one.
        """
        gym = need("gymnasium", extra="control")
        episodes = [_Episode(gym, self._checked(p), g, key.fold("act", p.id, i), self) for g, p in enumerate(prompts) for i in range(n)]
        alive = episodes
        for t in range(self.max_steps):
            if not alive:
                break
            output = self.actor(torch.stack([e.now for e in alive]))
            actions = self._choose(output, None if greedy else torch.stack([e.noise[t] for e in alive]))
            logp, _ = self._density(output, actions)
            for episode, action, value in zip(alive, actions, logp, strict=True):
                episode.tick(action, value)
            alive = [e for e in alive if not e.done]
        return [e.rollout() for e in episodes]

    def _choose(self, output: Tensor, noise: Tensor | None) -> Tensor:
        """Actions from the actor's output; noise: uniform `(M,)` for a categorical, standard normal `(M, d)` for a Gaussian."""
        if self.log_std is None:
            if noise is None:
                return output.argmax(-1)
            return (output.softmax(-1).cumsum(-1) < noise[:, None]).sum(-1).clamp(max=output.shape[-1] - 1)
        return output if noise is None else output + self.log_std.exp() * noise

    def _density(self, output: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of the actions, and the entropy of the distribution: both `(M,)`."""
        if self.log_std is None:
            log_probs = output.log_softmax(-1)
            return log_probs.gather(-1, actions[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)
        z = (actions - output) / self.log_std.exp()
        scale = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * output.shape[-1]
        return -0.5 * z.square().sum(-1) - scale, (scale + 0.5 * output.shape[-1]).expand(len(output))

    def _checked(self, prompt: Prompt) -> Prompt:
        env = prompt.meta.get("env", self.env)
        if env != self.env:
            raise UserError(f"prompt {prompt.id!r} is for {env!r}, the policy for {self.env!r}", hint="load both with the same --data")
        if not isinstance(prompt.content, int):
            raise UserError(f"prompt {prompt.id!r} holds {prompt.content!r}, expected an integer (a seed)", hint="use load_prompts")
        return prompt

    # ------------------------------------------------------------ learning

    def collate(self, rollouts: Sequence[Rollout]) -> Batch:
        """inputs: `observations (N, T, D)`, `actions (N, T)` or `(N, T, d)`, `length (N,)`, right-padded with 0. `old_logp` is what was
        recorded while acting, when every rollout has it."""
        for r in rollouts:
            if r.actions is None or not isinstance(r.content, Trajectory):
                raise UserError(
                    f"rollout of {r.prompt.id!r} holds {type(r.content).__name__} and {'no ' if r.actions is None else ''}actions, "
                    "expected a Trajectory and its actions",
                    hint="control policies learn from what ControlPolicy.sample returns",
                )
        length = torch.tensor([len(r) for r in rollouts])
        mask = _pad([torch.ones(len(r), dtype=torch.bool) if r.mask is None else r.mask for r in rollouts])
        known = [r.logp for r in rollouts if r.logp is not None]
        return Batch(
            inputs={
                "observations": _pad([r.content.observations for r in rollouts]),
                "actions": _pad([r.actions for r in rollouts if r.actions is not None]),
                "length": length,
            },
            mask=mask,
            group=torch.tensor([r.group for r in rollouts]),
            unit=torch.arange(len(rollouts)),
            old_logp=_pad(known) if len(known) == len(rollouts) else ABSENT,
        )

    def forward(self, batch: Batch, need: frozenset[str] = frozenset({"logp"})) -> Outputs:  # type: ignore[override]
        """`logp`, `entropy` and `value`, each `(N, T)` and 0 at padding. `value` needs `critic=True`."""
        observations, actions = batch.inputs["observations"], batch.inputs["actions"]
        n, t = observations.shape[:2]
        real = torch.arange(t, device=observations.device) < batch.inputs["length"][:, None]
        seen = observations[real]

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(n, t).masked_scatter(real, values)

        if "value" in need and self.critic is None:
            raise UserError("this policy has no critic, so it gives no `value`", hint="ControlPolicy(..., critic=True)")
        value = spread(self.critic(seen)[:, 0]) if "value" in need and self.critic is not None else ABSENT
        if not need & {"logp", "entropy"}:
            return Outputs(value=value)
        logp, entropy = self._density(self.actor(seen), actions[real])
        return Outputs(spread(logp), spread(entropy) if "entropy" in need else ABSENT, value)

    def save(self, folder: Path) -> None:
        """`config.json` and `model.safetensors`."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"env": self.env, "hidden": list(self.hidden), "critic": self.critic is not None, "max_steps": self.max_steps}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> ControlPolicy:
        """What `save` wrote."""
        from safetensors.torch import load_file

        folder = Path(folder)
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise UserError(f"{folder} holds no control policy", hint="ControlPolicy.save writes config.json and model.safetensors")
        policy = cls(**json.loads((folder / "config.json").read_text()))
        policy.load_state_dict(load_file(folder / "model.safetensors"))
        return policy


class _Episode:
    """One environment being played, and what was recorded of it."""

    def __init__(self, gym: Any, prompt: Prompt, group: int, key: Key, policy: ControlPolicy) -> None:
        # The checker wrapper only warns about badly written environments, at a third of the time of a tick.
        self.gym, self.env = gym, gym.make(policy.env, disable_env_checker=True)
        self.prompt, self.group, self.key, self.start, self.version = prompt, group, key, policy.first_action, policy.version
        generator = key.generator()
        if policy.log_std is None:
            self.noise = torch.rand(policy.max_steps, generator=generator)
        else:
            self.noise = torch.randn(policy.max_steps, len(policy.log_std), generator=generator)
        self.now = self._flat(self.env.reset(seed=prompt.content)[0])
        self.seen: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.logp: list[Tensor] = []
        self.rewards: list[float] = []
        self.terminated = self.truncated = False

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    def _flat(self, observation: Any) -> Tensor:
        return torch.as_tensor(self.gym.spaces.flatten(self.env.observation_space, observation), dtype=torch.float32)

    def tick(self, action: Tensor, logp: Tensor) -> None:
        self.seen.append(self.now)
        self.actions.append(action)
        self.logp.append(logp)
        space = self.env.action_space
        if action.is_floating_point():
            act: Any = action.reshape(space.shape).clamp(torch.as_tensor(space.low), torch.as_tensor(space.high)).numpy()
        else:
            act = int(action) + self.start
        observation, reward, self.terminated, self.truncated, _ = self.env.step(act)
        self.rewards.append(float(reward))
        self.now = self._flat(observation)
        if self.done:
            self.env.close()

    def rollout(self) -> Rollout:
        self.env.close()
        content = Trajectory(torch.stack(self.seen), torch.tensor(self.rewards), self.now, self.terminated)
        return Rollout(
            self.prompt,
            content,
            torch.stack(self.actions),
            torch.stack(self.logp),
            torch.ones(len(self.actions), dtype=torch.bool),
            group=self.group,
            end="stop" if self.terminated else "length",
            origin=Origin(self.version, str(self.key)),
        )


def _spaces(env: str) -> tuple[Any, Any]:
    gym = need("gymnasium", extra="control")
    try:
        made = gym.make(env, disable_env_checker=True)
    except gym.error.UnregisteredEnv:
        raise UserError(f"gymnasium has no environment {env!r}", hint=nearest(env, gym.registry)) from None
    made.close()
    return made.observation_space, made.action_space


def _mlp(widths: Sequence[int], gain: float, key: Key) -> nn.Sequential:
    """Linear layers with tanh between; orthogonal weights (gain sqrt 2, `gain` in the last layer), biases 0."""
    generator, layers = key.generator(), []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        linear: Any = nn.utils.skip_init(nn.Linear, a, b)
        nn.init.orthogonal_(linear.weight, gain if i == len(widths) - 2 else math.sqrt(2), generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _pad(tensors: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)


def env_id(data: str) -> str:
    """`CartPole-v1` from `env:CartPole-v1`."""
    if not data.startswith(PREFIX) or not data[len(PREFIX) :]:
        raise UserError(f"data {data!r}, expected 'env:' and the id of a gymnasium environment", hint="for instance --data env:CartPole-v1")
    return data[len(PREFIX) :]


def load_policy(model: str, data: str, key: Key, *, hidden: Sequence[int] = (64, 64), critic: bool = False) -> ControlPolicy:
    """A fresh perceptron (`model` = "mlp"), or one that was saved (`model` = its folder), for the environment that `data` names."""
    env = env_id(data)
    if model == "mlp":
        return ControlPolicy(env, hidden=hidden, critic=critic, key=key)
    policy = ControlPolicy.load(Path(model))
    if policy.env != env:
        raise UserError(f"the policy in {model} was trained for {policy.env!r}, the data is {env!r}", hint=f"--data env:{policy.env}")
    return policy


def load_prompts(data: str, *, n: int = 256, first: int = 0) -> list[Prompt]:
    """n initial states: the environment's seeds `first`, `first + 1`, ... Take another `first` for held-out states."""
    env = env_id(data)
    return [Prompt(f"{env}/{seed}", seed, {"env": env}) for seed in range(first, first + n)]
