"""Co-Reward: whose vote is whose label, both wordings aligned, the teacher apart from its student, and what a label is read from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guerdon.assemble import configure, prepare
from guerdon.config import Optim, Sampling
from guerdon.core.rng import Key
from guerdon.data import load
from guerdon.data.paraphrase import REQUEST, paraphrased, parse, request, reworded
from guerdon.errors import UserError
from guerdon.papers import co_reward
from guerdon.policies.refs import Ema
from guerdon.rewards.cross_vote import answer_of, boxed, by_label, labels
from guerdon.testing import ToyPolicy, check_recipe, toy_prompts
from guerdon.types import Prompt, Rollout

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def rollouts(texts: list[str], group: int, **meta: Any) -> list[Rollout]:
    return [Rollout(Prompt(f"p{group}", "?", meta), text, torch.zeros(1), group=group) for text in texts]


# ---------------------------------------------------------------- votes


def test_the_worked_example():
    said = rollouts(["12", "12", "8", ""], 0) + rollouts(["8", "8", "12", "8"], 1)
    votes = labels(said)
    assert votes == {0: "12", 1: "8"}
    crossed = by_label(said, {g: votes[g ^ 1] for g in votes})
    assert [s.value for s in crossed] == [0, 0, 1, 0, 0, 0, 1, 0]


def test_a_known_answer_is_shown_and_not_learnt_from():
    said = rollouts(["4", "5"], 0, answer=5)
    scores = by_label(said, {0: "4"})
    assert [s.value for s in scores] == [1, 0]
    assert [s.parts for s in scores] == [{"right": 0.0}, {"right": 1.0}]
    assert by_label(rollouts(["4"], 0), {0: ""})[0].parts == {}


@pytest.mark.parametrize(
    ("text", "box", "tag"),
    [
        ("so \\boxed{3} or rather \\boxed{ \\frac{1}{2} }.", "\\frac{1}{2}", "so \\boxed{3} or rather \\boxed{ \\frac{1}{2} }."),
        ("\\boxed{open {4}", "", "\\boxed{open {4}"),
        ("<think>7</think> <answer> 8 </answer>", "", "8"),
        ("", "", ""),
        ("\\boxed{}", "", "\\boxed{}"),
    ],
)
def test_where_the_answer_stands(text, box, tag):
    assert boxed(text) == box
    assert answer_of(rollouts([text], 0)[0], "boxed") == box
    assert answer_of(rollouts([text], 0)[0]) == tag


# ---------------------------------------------------------------- wordings


def test_a_rewrite_is_read_back_or_dropped():
    block = "Sure!\n[BEGIN]\nORIGINAL: 2 + 2?\nREWRITE: Two hens meet two hens. REWRITE: how many?\n[END]\nDone."
    assert parse(block) == "Two hens meet two hens. REWRITE: how many?"
    for wrong in ("", "REWRITE: x", "[BEGIN] REWRITE: x", "[BEGIN] x [END]", "[BEGIN] REWRITE: [END]", "[END] REWRITE: x [BEGIN]"):
        assert parse(wrong) is None
    assert parse(request(Prompt("a", "2 + 2?")).content[0]["content"]) == "your version"  # the form that the request shows
    assert "{question}" in REQUEST and "2 + 2?" in request(Prompt("a", CHAT)).content[0]["content"]


class Writer:
    """Answers requests with these texts."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def sample(self, prompts: Any, n: int, key: Key) -> list[Rollout]:
        return [Rollout(p, text) for p, text in zip(prompts, self.texts, strict=True)]


def test_failures_leave_both_wordings_out():
    asked = [Prompt("a", "2 + 2?", {"answer": "4"}), Prompt("b", "3 + 3?"), Prompt("c", "4 + 4?"), Prompt("d", CHAT)]
    form = "[BEGIN] ORIGINAL: x REWRITE: {} [END]"
    writer = Writer([form.format("two hens and two"), "I cannot", form.format("4 + 4?"), form.format("hens")])
    found = paraphrased(asked, writer, Key(0))  # type: ignore[arg-type]
    assert [(p.id, p.meta["paraphrase"]) for p in found] == [("a", "two hens and two"), ("d", "hens")]
    assert found[0].meta["answer"] == "4" and found[0].content == "2 + 2?"
    assert reworded(found[1]).content == [CHAT[0], {"role": "user", "content": "hens"}]
    with pytest.raises(UserError, match="none of 1 questions"):
        paraphrased(asked[1:2], Writer(["no"]), Key(0))  # type: ignore[arg-type]


def test_the_built_in_sums_mean_the_same_in_both_wordings():
    items = load("reworded-sums?n=40", "prompts").items
    assert len({p.content for p in items}) > 30
    for p in items:
        numbers = [
            [int(w) for w in text.replace(",", " ").replace("?", " ").replace(".", " ").split() if w.isdigit()]
            for text in (p.content, p.meta["paraphrase"])
        ]
        assert sorted(numbers[0]) == sorted(numbers[1]) and sum(numbers[0]) == int(p.meta["answer"])
    with pytest.raises(UserError, match="prompts, of one kind"):
        load("reworded-sums", "pairs")
    with pytest.raises(UserError, match="unknown option"):
        load("reworded-sums?size=3", "prompts")


# ---------------------------------------------------------------- the recipe


def built(policy: ToyPolicy | None = None, prompts: list[Prompt] | None = None, **changes: Any) -> Any:
    usual: dict[str, Any] = dict(column="answer", batch=3, steps=6, sampling=Sampling(n=6), optim=Optim(lr=0.1))
    return co_reward.build(co_reward.Config(**{**usual, **changes}), policy or ToyPolicy(), prompts or toy_prompts(), Key(0))


def telling(policy: ToyPolicy, context: int, letter: str) -> None:
    """In this context the policy says the letter and stops, nearly always."""
    with torch.no_grad():
        policy.logits[context] = 0
        policy.logits[context, 0, 1 + policy.letters.index(letter)] = 3
        policy.logits[context, 1:, 0] = 9


def chance(policy: ToyPolicy, context: int, letter: str) -> float:
    return float(policy.logits[context, 0].detach().softmax(-1)[1 + policy.letters.index(letter)])


def two_contexts(question: str, paraphrase: str) -> tuple[ToyPolicy, list[Prompt]]:
    """A policy that says these letters to the two wordings of one question."""
    policy, prompt = ToyPolicy(), Prompt("q", "A", {"answer": "B"})
    telling(policy, policy.context(prompt), question)
    telling(policy, policy.context(reworded(prompt, "answer")), paraphrase)
    return policy, [prompt]


def test_two_wordings_that_agree_make_each_other_surer():
    policy, prompts = two_contexts("a", "a")
    before = [chance(policy, c, "a") for c in (policy.context(prompts[0]), policy.context(reworded(prompts[0], "answer")))]
    recipe = built(policy, prompts, batch=1, beta=0.0)
    metrics = [recipe.step(t) for t in range(6)]
    assert metrics[0]["labels/agree"] == 1 and metrics[0]["labels/none"] == 0
    after = [chance(policy, c, "a") for c in (policy.context(prompts[0]), policy.context(reworded(prompts[0], "answer")))]
    assert all(b > a + 0.02 for a, b in zip(before, after, strict=True))


def test_two_wordings_that_are_sure_of_different_answers_do_not():
    """Each is paid for the other's label, which it hardly ever gives: neither grows surer of its own."""
    policy, prompts = two_contexts("a", "c")
    here = policy.context(prompts[0])
    before = chance(policy, here, "a")
    recipe = built(policy, prompts, batch=1, beta=0.0)
    metrics = [recipe.step(t) for t in range(6)]
    assert metrics[0]["labels/agree"] == 0 and metrics[0]["reward"] < 0.2
    assert chance(policy, here, "a") <= before


def test_the_teacher_votes_and_follows_slowly():
    policy, prompts = two_contexts("a", "c")
    recipe = built(policy, prompts, batch=1, voter="teacher", start=0.5, end=1.0, steps=4)
    teacher = recipe.state["teacher"]
    assert isinstance(teacher, Ema)
    start = teacher.policy.logits.clone()
    first = recipe.step(0)
    assert "labels/agree" not in first
    torch.testing.assert_close(teacher.policy.logits, 0.5 * (start + policy.logits))  # half of the way at the first step
    with torch.no_grad():
        policy.logits.zero_()  # a student that has forgotten all
        policy.logits[:, :, 4] = 5  # and says "dddd"
    assert recipe.step(1)["reward"] < 0.2  # the label is still the teacher's


def test_it_survives_a_kill():
    for voter in ("paraphrase", "teacher"):
        check_recipe(lambda voter=voter: built(ToyPolicy(spread=0.3), voter=voter), steps=4)


def test_what_cannot_work_is_refused_early():
    with pytest.raises(UserError, match=r"no text in the column 'paraphrase'.*\nhint: .*--voter teacher"):
        built(column="paraphrase")
    method, cfg = configure("co_reward", {"data": "human-ratings:movie"})
    with pytest.raises(UserError, match=r"no text in the column 'paraphrase'"):
        prepare(method, cfg)
    built(column="paraphrase", voter="teacher")


def test_long_questions_go_in_both_wordings():
    class Codec:
        @staticmethod
        def prompt_ids(p: Prompt) -> list[int]:
            return [0] * len(p.content)

    policy: Any = ToyPolicy()
    policy.codec = Codec
    views = [(Prompt("a", "xx"), Prompt("b", "xxxxx")), (Prompt("c", "xx"), Prompt("d", "x"))]
    assert [v[0].id for v in co_reward.short(views, policy, 4)] == ["c"]
    assert co_reward.short(views, policy, None) == views
    with pytest.raises(UserError, match="all 2 questions are longer than 1 tokens"):
        co_reward.short(views, policy, 1)
