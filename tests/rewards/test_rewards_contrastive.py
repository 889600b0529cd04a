"""Token rewards from two contrary instructions, on the very tokens of the answer."""

import pytest
import torch

from guerdon.errors import UserError
from guerdon.learn.little import new_policy
from guerdon.policies.text import TextPolicy
from guerdon.rewards.contrastive import BETTER, WORSE, ContrastiveReward, context
from guerdon.testing import ToyPolicy, check_reward
from guerdon.types import Prompt, Rollout

ANSWER = Rollout(Prompt("p", [{"role": "user", "content": "Write a sentence from a movie review."}]), "A film of great beauty.")


@pytest.fixture(scope="module")
def tiny():
    return TextPolicy.load("tiny")


def test_values_are_those_of_the_same_tokens_in_both_contexts(tiny):
    [got] = ContrastiveReward(tiny).tokens([ANSWER])
    ids = tiny.encode(ANSWER).actions
    logp = []
    for instruction in (BETTER, WORSE):
        asked = context(ANSWER, instruction)
        assert [m["role"] for m in asked.content] == ["user", "assistant", "user"]
        assert asked.content[1]["content"] == ANSWER.content
        whole = torch.tensor([tiny.codec.prompt_ids(asked) + ids.tolist()])
        with torch.no_grad():
            logits = tiny.model(whole).logits.log_softmax(-1)[0, -len(ids) - 1 : -1]
        logp.append(logits.gather(1, ids[:, None])[:, 0])
    want = torch.sigmoid(logp[0] - logp[1]) - 0.5
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert got.abs().max() > 1e-3
    assert len(got) == len(ids)


def test_text_prompts_and_places():
    answer = Rollout(Prompt("p", "Q {answer}?"), "A {prompt}")
    assert context(answer, "Better!").content == "Q {answer}?\n\nA {prompt}\n\nBetter!\n\n"
    assert context(answer, "B {prompt}").content == "B Q {answer}?"
    assert context(answer, "{answer}|{prompt}|{answer}").content == "A {prompt}|Q {answer}?|A {prompt}"


def test_what_does_not_fit_has_no_reward():
    policy = new_policy("abcdefgh", 0, max_new=4, context=12)
    reward = ContrastiveReward(policy, "g {prompt} {answer}", "h {prompt} {answer}")
    [short, long] = reward.tokens([Rollout(Prompt("p", "a"), "b c"), Rollout(Prompt("p", "a"), "b c d e f")])
    assert short.abs().min() > 0
    assert len(short) == 3  # the end counts
    assert (long != 0).tolist() == [True] * 5 + [False]  # 7 tokens of context leave room for 5 of 6
    [none] = reward.tokens([Rollout(Prompt("p", "a a a a a"), "b c d e f")])
    assert (none != 0).tolist() == [True] + [False] * 5


def test_tokens_that_the_policy_did_not_choose_have_no_reward():
    policy = ToyPolicy(spread=1.0)
    whole = policy.encode(Rollout(Prompt("p", "A"), "abc"))
    masked = whole.with_(mask=torch.tensor([True, False, True, False]))
    [a, b] = (ContrastiveReward(policy, "x", "y").tokens([r])[0] for r in (whole, masked))
    assert (a != 0).all()
    torch.testing.assert_close(b, torch.where(torch.tensor([True, False, True, False]), a, 0.0))


def test_as_a_reward(tiny):
    reward = ContrastiveReward(tiny)
    texts = ("Good.", "Bad, bad, bad.", "It was a film.")
    check_reward(reward, [tiny.encode(ANSWER.with_(content=text)) for text in texts])
    check_reward(reward, [ANSWER.with_(content=text) for text in texts])
    done = tiny.encode(ANSWER)
    [score], [whole] = reward([done]), reward([ANSWER])
    assert [s.stop - s.start for s in score.spans] == [1] * len(done)
    assert score.value == pytest.approx(whole.value, abs=1e-6)
    with pytest.raises(UserError, match="instruction are the same"):
        ContrastiveReward(tiny, "x", "x")
