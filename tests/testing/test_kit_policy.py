"""check_policy accepts the toy policy and refuses policies that break one promise each."""

import dataclasses

import pytest
import torch

from guerdon.testing import ToyPolicy, check_policy, toy_prompts

NEEDS = ("logp", "entropy", "value", "score")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_toy_policy_keeps_every_promise(temperature):
    check_policy(ToyPolicy(spread=1.0, temperature=temperature), toy_prompts(4), n=4, needs=NEEDS)


class OtherTemperature(ToyPolicy):
    def forward(self, batch, need=frozenset({"logp"})):
        kept, self.temperature = self.temperature, 1.5
        out = super().forward(batch, need)
        self.temperature = kept
        return out


class GlobalStream(ToyPolicy):
    def sample(self, prompts, n, key):
        return super().sample(prompts, n, key.fold(int(torch.randint(2**40, ()))))


class SameDraws(ToyPolicy):
    def sample(self, prompts, n, key):
        return super().sample(prompts, n, type(key)(0))


class Interleaved(ToyPolicy):
    def sample(self, prompts, n, key):
        out = super().sample(prompts, n, key)
        return [out[g * n + i] for i in range(n) for g in range(len(prompts))]


class Forgetful(ToyPolicy):
    def state_dict(self, *args, **kwargs):
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if k != "logits"}

    def load_state_dict(self, state, *args, **kwargs):
        return super().load_state_dict({**super().state_dict(), **state}, *args, **kwargs)


class Crosstalk(ToyPolicy):
    def forward(self, batch, need=frozenset({"logp"})):
        out = super().forward(batch, need)
        return dataclasses.replace(out, logp=out.logp - out.logp.mean() + out.logp.mean() * len(batch) / 12)


class PaddingMask(ToyPolicy):
    def collate(self, rollouts):
        batch = super().collate(rollouts)
        return batch.with_(mask=batch.inputs["actions"] != 0)


class Unordered(ToyPolicy):
    def parameters(self, recurse=True):
        self.turn = not getattr(self, "turn", False)
        found = list(super().parameters(recurse))
        return found if self.turn else found[::-1]


class Unsaved(ToyPolicy):
    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)


BROKEN = [
    (OtherTemperature, "while sampling"),
    (GlobalStream, "same key"),
    (SameDraws, "another key"),
    (Interleaved, "prompt's index"),
    (Forgetful, "load_state_dict"),
    (Crosstalk, "Batch.rows"),
    (PaddingMask, "mask"),
    (Unordered, "order"),
    (Unsaved, "no file"),
]


@pytest.mark.parametrize(("cls", "told"), BROKEN)
def test_broken_policies_fail_and_say_why(cls, told):
    with pytest.raises(AssertionError, match="hint:") as failure:
        check_policy(cls(spread=1.0), toy_prompts(4), n=3)
    assert told in str(failure.value)
