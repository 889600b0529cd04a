"""Step-level pairs: what is context, what counts, what is cut off."""

import pytest

from guerdon.errors import UserError
from guerdon.learn.steps import first_step
from guerdon.learn.verbs import pair_batch
from guerdon.policies.text import TextPolicy
from guerdon.testing import ToyPolicy, toy_pools
from guerdon.testing.models import small_model
from guerdon.types import Preference, Prompt, Rollout


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return TextPolicy.load(small_model(tmp_path_factory.mktemp("model")))


def pair(chosen, rejected):
    prompt = Prompt("p", "What is 12 plus 30, times 7?")
    return Preference(prompt, (Rollout(prompt, chosen), Rollout(prompt, rejected)))


def counted(policy, rollout):
    """The text of the tokens that count."""
    return policy.tokenizer.decode(rollout.actions[rollout.mask])


def test_only_the_step_in_which_they_part_counts(policy):
    made = first_step(pair("12 + 30 is 42\n42 times 7 is 294\nso: 294", "12 + 30 is 42\n42 times 7 is 300\nso: 300"), policy)
    win, lose = made.ranked
    assert policy.tokenizer.decode(win.actions) == "12 + 30 is 42\n42 times 7 is 294\n"  # the steps after it are cut off, no stop token
    assert counted(policy, win).endswith("294\n")
    assert counted(policy, lose).endswith("300\n")
    assert "+" not in counted(policy, win) + counted(policy, lose)
    shared = int((~win.mask).sum())
    assert win.actions[:shared].tolist() == lose.actions[:shared].tolist()
    assert win.mask[shared:].all()


def test_the_last_step_keeps_its_stop(policy):
    win, lose = first_step(pair("a\nb", "a\nc"), policy).ranked
    assert win.actions[-1].item() in policy.codec.stop_ids
    assert lose.actions[-1].item() in policy.codec.stop_ids
    assert counted(policy, win).startswith("b")


def test_log_probabilities_are_those_of_the_whole_answer(policy):
    """The correct steps are context: the same numbers as in the uncut pair, summed over the step alone."""
    whole = pair("12 + 30 is 42\n42 times 7 is 294", "12 + 30 is 42\n42 times 7 is 300")
    a, b = pair_batch(policy, [whole]), pair_batch(policy, [first_step(whole, policy)])
    assert b.mask.sum() < a.mask.sum()
    one, two = policy.forward(a).logp, policy.forward(b).logp
    assert (one - two)[b.mask].abs().max() < 1e-5


def test_another_joint_and_no_joint_at_all(policy):
    win, _ = first_step(pair("good; kind; all", "good; dull; all"), policy, joint="; ").ranked
    assert policy.tokenizer.decode(win.actions) == "good; kind; "
    win, lose = first_step(pair("The food was great", "The food was long"), policy).ranked
    assert counted(policy, win).strip().startswith("g")
    assert win.mask.any()
    assert lose.mask.any()


def test_what_cannot_be_cut():
    with pytest.raises(UserError, match="steps are found in pairs"):
        first_step(toy_pools(1)[0], ToyPolicy())
    with pytest.raises(UserError, match="can encode"):
        first_step(pair("a", "b"), object())  # type: ignore[arg-type]
