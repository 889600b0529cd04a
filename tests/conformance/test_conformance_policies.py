"""Every policy keeps the contract of `types.Policy`; a class without an entry here fails."""

import importlib
import inspect
import pkgutil

import pytest

import guerdon.policies
from guerdon.core.rng import Key
from guerdon.testing import ToyPolicy, check_policy, toy_prompts
from guerdon.testing.models import small_model
from guerdon.types import Prompt

VERBS = ("sample", "collate", "forward", "save", "parameters", "state_dict", "load_state_dict")
TALK = [Prompt("a", "The food was"), Prompt("b", "What is 12 plus 30?"), Prompt("c", [{"role": "user", "content": "Hello"}])]


def toy(folder):
    return ToyPolicy(spread=1.0), toy_prompts(3), {}


def text(folder, **options):
    from guerdon.policies.text import TextPolicy

    return TextPolicy.load(small_model(folder), max_new=8, **options), TALK, {"tolerance": 1e-4}


def text_packed(folder):
    return text(folder, layout="packed")


def text_tempered(folder):
    return text(folder, temperature=0.7)


def text_lora(folder):
    from guerdon.policies.lora import Lora

    return text(folder, lora=Lora(2, 4.0, "all-linear", 0))


def text_critic(folder):
    return text(folder, critic=True)


def playing(folder):
    from guerdon.envs.calculator import Calculator
    from guerdon.policies.turns import Playing

    world = Calculator(call="(.*)", turns=1)  # whatever is said is a call
    return Playing.load(small_model(folder), world=world, max_new=8), TALK, {"offline": False}


def text_delta_net(folder):
    from guerdon.policies.text import TextPolicy

    return TextPolicy.load(small_model(folder, "delta_net"), max_new=8), TALK, {"tolerance": 1e-4}


def control(folder):
    from guerdon.policies.control import ControlPolicy, load_prompts

    return ControlPolicy("CartPole-v1", hidden=(8,), critic=True), load_prompts("env:CartPole-v1", n=3), {"offline": False}


def control_gaussian(folder):
    from guerdon.policies.control import ControlPolicy, load_prompts

    return ControlPolicy("Pendulum-v1", hidden=(8,), max_steps=20), load_prompts("env:Pendulum-v1", n=3), {"offline": False}


def diffusion(folder):
    from diffusers import DDPMScheduler

    from guerdon.policies.diffusion import DiffusionPolicy, small_unet

    unet = small_unet(Key(1), widths=(8, 8))
    return (
        DiffusionPolicy(unet, DDPMScheduler(num_train_timesteps=100), steps=4),
        [Prompt(str(i), i) for i in range(3)],
        {"tolerance": 1e-3},
    )


CASES = {
    "ToyPolicy": [toy],
    "TextPolicy": [text, text_packed, text_tempered, text_lora, text_critic, text_delta_net],
    "Playing": [playing],
    "ControlPolicy": [control, control_gaussian],
    "DiffusionPolicy": [diffusion],
}
SCORERS = {  # they judge and don't act, and have tests of their own in tests/policies
    *("Scorer", "FeatureScorer", "FrozenScorer", "WritingScorer", "GatedScorer"),
    *("TwoViews", "Readable", "Tagger", "PromptRegressor"),
}


def test_every_policy_has_an_entry():
    found = set()
    for info in pkgutil.iter_modules(guerdon.policies.__path__):
        module = importlib.import_module(f"guerdon.policies.{info.name}")
        classes = (c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__)
        found |= {c.__name__ for c in classes if all(hasattr(c, verb) for verb in VERBS)}
    assert found - set(CASES) - SCORERS == set(), "add a function that makes one to CASES"
    assert found >= {"TextPolicy", "ControlPolicy", "DiffusionPolicy"}


@pytest.mark.parametrize("make", [pytest.param(make, id=make.__name__) for cases in CASES.values() for make in cases])
def test_policies(make, tmp_path):
    policy, prompts, options = make(tmp_path)
    check_policy(policy, prompts, **options)
