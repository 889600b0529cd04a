"""Diffusion policies: exact log-probabilities, shared noise, Diffusion-DPO as DPO, diffusers' own sampler, saving."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from guerdon.core import preference
from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.verbs import chosen, pair_batch, rejected, row_sum
from guerdon.papers import diffusion_dpo, dpo
from guerdon.policies.diffusion import DiffusionPolicy, load_demos, load_pairs, load_policy, load_prompts, small_unet
from guerdon.policies.refs import Frozen
from guerdon.types import Preference, Prompt, Rollout


def make(**settings) -> DiffusionPolicy:
    """A tiny UNet in float64, on a coarse schedule."""
    unet = small_unet(Key(1), widths=(8, 8)).double()
    return DiffusionPolicy(unet, DDPMScheduler(num_train_timesteps=100), **{"steps": 5, **settings})


def images(n: int, *, shared: bool = False) -> list[Rollout]:
    generator = Key(7).generator()
    return [
        Rollout(Prompt(f"c{i % 10}", i % 10), torch.rand(1, 8, 8, generator=generator) * 2 - 1, group=0 if shared else i) for i in range(n)
    ]


def given(rollout: Rollout) -> Rollout:
    return rollout.with_(actions=None, logp=None, mask=None)


# ---------------------------------------------------------------- denoising steps


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_step_log_probabilities_are_those_of_a_naive_loop_and_of_the_sampler(eta):
    policy = make(eta=eta)
    rollouts = policy.sample([Prompt("3", 3), Prompt("8", 8)], 2, Key(0))
    batch = policy.collate(rollouts)
    with torch.no_grad():
        out = policy.forward(batch, frozenset({"logp", "entropy"}))
        for i, rollout in enumerate(rollouts):
            latents = rollout.actions.view(5, 1, 8, 8)
            unit = torch.distributions.Normal(torch.zeros(1).double(), 1)
            torch.testing.assert_close(out.logp[i, 0], unit.log_prob(latents[0]).sum())
            for t in range(4):
                mean, sigma = policy.transition(latents[t][None], torch.tensor([t]), torch.tensor([rollout.prompt.content]))
                step = torch.distributions.Normal(mean[0], sigma[0])
                torch.testing.assert_close(out.logp[i, t + 1], step.log_prob(latents[t + 1]).sum())
                torch.testing.assert_close(out.entropy[i, t + 1], step.entropy().sum())
    torch.testing.assert_close(out.logp, batch.old_logp)
    assert batch.mask.tolist() == [[False, True, True, True, True]] * 4


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_transitions_are_those_of_diffusers(eta):
    policy = make(eta=eta)
    ddim = DDIMScheduler.from_config(policy.scheduler.config, timestep_spacing="trailing", clip_sample=True)
    ddim.set_timesteps(5)
    assert ddim.timesteps.tolist() == policy.grid.tolist() == [99, 79, 59, 39, 19]
    x, classes = torch.randn(1, 1, 8, 8, generator=Key(2).generator()).double(), torch.tensor([4])
    for k, t in enumerate(ddim.timesteps):
        with torch.no_grad():
            mean, sigma = policy.transition(x, torch.tensor([k]), classes)
            noise = policy.noise_at(x, t[None], classes)
        zero = torch.zeros_like(x)
        theirs = ddim.step(noise, t, x, eta=eta, use_clipped_model_output=True, variance_noise=zero).prev_sample
        torch.testing.assert_close(mean, theirs, atol=1e-6, rtol=1e-6)  # their table of abar is float32
        moved = ddim.step(noise, t, x, eta=eta, use_clipped_model_output=True, variance_noise=zero + 1).prev_sample
        torch.testing.assert_close(mean + sigma, moved, atol=1e-6, rtol=1e-6)
        x = mean
    assert sigma == 0


def test_an_image_depends_on_its_prompt_and_key_only():
    policy = make()
    a, b = Prompt("a", 1), Prompt("b", 2)
    together, alone = policy.sample([a, b], 2, Key(5)), policy.sample([b], 2, Key(5))
    for x, y in zip(together[2:], alone, strict=True):
        torch.testing.assert_close(x.content, y.content)
        torch.testing.assert_close(x.logp, y.logp)
    again = policy.sample([a, b], 2, Key(5))
    assert all(torch.equal(x.content, y.content) for x, y in zip(together, again, strict=True))
    assert not torch.equal(alone[0].content, alone[1].content)
    assert not torch.equal(alone[0].content, policy.sample([b], 1, Key(6))[0].content)
    assert [r.group for r in together] == [0, 0, 1, 1]
    in_parts = make(rows_at_once=3).sample([a, b], 2, Key(5))
    assert all(torch.allclose(x.content, y.content) for x, y in zip(together, in_parts, strict=True))


def test_policy_gradients_learn_from_denoising_steps():
    policy = make()
    batch = policy.collate(policy.sample([Prompt("1", 1)], 3, Key(0)))
    policy.forward(batch).logp[batch.mask].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in policy.unet.parameters())


# ---------------------------------------------------------------- given images


def test_denoising_log_probability_is_minus_the_error_of_a_naive_loop():
    policy = make(levels=3)
    batch = policy.collate(images(4))
    with torch.no_grad():
        logp = policy.forward(batch).logp
        for i in range(4):
            for t in range(3):
                level, noise = batch.inputs["level"][i, t], batch.inputs["noise"][i, t]
                a = policy.scheduler.alphas_cumprod.double()[level]
                x = a.sqrt() * batch.inputs["images"][i] + (1 - a).sqrt() * noise
                error = policy.unet(x[None], level, class_labels=torch.tensor([i])).sample[0] - noise
                torch.testing.assert_close(logp[i, t], -error.square().mean())


def test_a_pair_shares_level_and_noise_and_other_pairs_have_their_own():
    policy = make(levels=2)
    prompt = Prompt("5", 5)
    pairs = [Preference(prompt, tuple(r.with_(prompt=prompt) for r in images(2))) for _ in range(3)]
    batch = pair_batch(policy, pairs)
    noise, level = batch.inputs["noise"], batch.inputs["level"]
    assert torch.equal(noise[0::2], noise[1::2])
    assert torch.equal(level[0::2], level[1::2])
    assert not torch.equal(noise[0], noise[2])
    assert batch.unit.tolist() == [0, 0, 1, 1, 2, 2]


def test_noise_is_new_after_every_update_and_the_same_when_asked_again():
    policy, data = make(key=Key(4)), images(2)
    first = policy.collate(data).inputs["noise"]
    assert torch.equal(policy.collate(data).inputs["noise"], first)  # a probe between two updates changes nothing
    learner = Learner(policy, [diffusion_dpo.denoising], Adam(1e-3))
    learner.update(policy.collate(data))
    second = policy.collate(data).inputs["noise"]
    assert not torch.equal(first, second)
    resumed = make(key=Key(4))
    Learner(resumed, [diffusion_dpo.denoising], Adam(1e-3)).load_state_dict(learner.state_dict())
    assert torch.equal(resumed.collate(data).inputs["noise"], second)
    assert not torch.equal(make(key=Key(5)).collate(data).inputs["noise"], first)


def test_identical_images_give_log_2_and_no_gradient():
    policy = make()
    image = images(1)[0]
    batch = pair_batch(policy, [Preference(image.prompt, (image, image))])
    batch = batch.with_(ref_logp=Frozen(policy).logp(batch) - 0.3)
    term = dpo.term(1000.0)
    loss = term.loss(policy.forward(batch), batch)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)
    assert max(p.grad.abs().max() for p in policy.unet.parameters()) < 1e-9


# ---------------------------------------------------------------- Diffusion-DPO is DPO on minus the errors


def test_golden_diffusion_dpo():
    logp = -torch.tensor([0.100, 0.101], dtype=torch.float64)
    ref = -torch.tensor([0.1002, 0.1008], dtype=torch.float64)
    ratio = (logp - ref)[:, None]
    loss = preference.dpo(ratio[0], ratio[1], beta=0.5 * 5000)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)  # z = 1: log(1 + 1/e)


def test_the_dpo_term_on_this_policy_is_diffusion_dpo():
    policy = make()
    ref = Frozen(policy)
    with torch.no_grad():
        for p in policy.unet.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=Key(1).generator()))
    prompt = Prompt("2", 2)
    first, second, third, fourth = (r.with_(prompt=prompt) for r in images(4))
    batch = pair_batch(policy, [Preference(prompt, (first, second)), Preference(prompt, (third, fourth))])
    batch = batch.with_(ref_logp=ref.logp(batch))
    beta = 50.0

    def errors(p):
        a = p.abar[batch.inputs["level"][:, 0]].view(-1, 1, 1, 1)
        eps = batch.inputs["noise"][:, 0]
        x = a.sqrt() * batch.inputs["images"] + (1 - a).sqrt() * eps
        return (p.noise_at(x, batch.inputs["level"][:, 0], batch.inputs["classes"]) - eps).square().mean((1, 2, 3))

    with torch.no_grad():
        out = policy.forward(batch)
        m, f = errors(policy), errors(ref.policy)
        z = -0.5 * beta * ((m[0::2] - m[1::2]) - (f[0::2] - f[1::2]))
        torch.testing.assert_close(dpo.term(0.5 * beta).loss(out, batch), -torch.nn.functional.logsigmoid(z))
        assert z.abs().min() > 0
    assert torch.equal(chosen(batch, row_sum(out.logp, batch)), -m[0::2])
    assert torch.equal(rejected(batch, row_sum(out.logp, batch)), -m[1::2])


def test_micro_batches_do_not_change_the_gradient():
    grads = []
    for micro in (None, 1):
        policy = make()
        prompt = Prompt("2", 2)
        rollouts = [r.with_(prompt=prompt) for r in images(6)]
        batch = pair_batch(policy, [Preference(prompt, tuple(rollouts[i : i + 2])) for i in (0, 2, 4)])
        batch = batch.with_(ref_logp=Frozen(policy).logp(batch))
        learner = Learner(policy, [dpo.term(10.0)], Adam(1e-3), micro_units=micro, max_grad_norm=None)
        learner.update(batch)
        grads.append(torch.cat([p.detach().flatten() for p in policy.unet.parameters()]))
    torch.testing.assert_close(grads[0], grads[1])


# ---------------------------------------------------------------- loading and saving


def test_what_is_saved_draws_the_same_and_diffusers_reads_it(tmp_path):
    policy = load_policy("unet", "digits", Key(0), steps=4, eta=0.7)
    policy.save(tmp_path / "model")
    loaded = load_policy(str(tmp_path / "model"), "digits", Key(9))
    for a, b in zip(policy.sample(load_prompts()[:2], 1, Key(1)), loaded.sample(load_prompts()[:2], 1, Key(1)), strict=True):
        assert torch.equal(a.content, b.content)
        assert torch.equal(a.logp, b.logp)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(pipeline.unet.conv_in.weight, policy.unet.conv_in.weight)
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert load_policy(str(tmp_path / "model"), steps=3).steps == 3


def test_an_unconditional_diffusers_folder_loads_and_samples(tmp_path):
    unet = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1, down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), norm_num_groups=4, add_attention=False,
    )  # fmt: skip
    unet.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), steps=3)
    rollout = policy.sample([Prompt("any", None)], 1, Key(0))[0]
    assert rollout.content.shape == (3, 8, 8)
    batch = policy.collate([given(rollout)])
    assert "classes" not in batch.inputs
    assert torch.isfinite(policy.forward(batch).logp).all()


def test_the_digits_are_real_and_pairs_prefer_more_ink():
    demos, pairs = load_demos(), load_pairs(key=Key(0))
    assert len(demos) == 1797
    assert len({r.group for r in demos}) == 1797
    assert (min(r.content.min() for r in demos), max(r.content.max() for r in demos)) == (-1, 1)
    assert len(pairs) == sum(sum(r.prompt.content == c for r in demos) // 2 for c in range(10))
    assert all(p.ranked[0].content.mean() >= p.ranked[1].content.mean() and p.margin >= 0 for p in pairs)
    assert [p.margin for p in load_pairs(key=Key(1))] != [p.margin for p in pairs]


def test_wrong_input_says_what_to_do(tmp_path):
    policy = make()
    sampled = policy.sample([Prompt("1", 1)], 1, Key(0))[0]
    with pytest.raises(UserError, match="expected a class id from 0 to 9"):
        policy.sample([Prompt("p", "a cat")], 1, Key(0))
    with pytest.raises(UserError, match="hint: make sampled ones given"):
        policy.collate([sampled, given(sampled)])
    with pytest.raises(UserError, match=r"expected an image tensor of shape \(1, 8, 8\)"):
        policy.collate([Rollout(Prompt("1", 1), torch.zeros(8, 8))])
    with pytest.raises(UserError, match="the policy takes 4"):
        make(steps=4).collate([sampled])
    still = make(eta=0.0)
    batch = still.collate(still.sample([Prompt("1", 1)], 1, Key(0)))
    assert not batch.mask.any()
    with pytest.raises(UserError, match="eta > 0"):
        still.forward(batch)
    with pytest.raises(UserError, match="no entropy"):
        policy.forward(policy.collate(images(1)), frozenset({"entropy"}))
    with pytest.raises(UserError, match="expected 'epsilon'"):
        DiffusionPolicy(policy.unet, DDPMScheduler(prediction_type="v_prediction"))
    with pytest.raises(UserError, match="2 <= steps"):
        make(steps=1)
    with pytest.raises(UserError, match="expected 'digits'"):
        load_policy("unet", "cats", Key(0))
    with pytest.raises(UserError, match="no UNet2DModel"):
        load_policy(str(tmp_path))
