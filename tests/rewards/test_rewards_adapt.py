"""Reward functions as users of other libraries write them, plugged in unchanged."""

import asyncio
import re
from types import SimpleNamespace

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import dry_run, to_trl, to_verl
from guerdon.rewards.adapt import adapt
from guerdon.rewards.rules import exact_match, format_tags
from guerdon.types import Origin, Prompt, Rollout

CHAT = [{"role": "user", "content": "2+2?"}]


def rollouts(*texts, chat=False, ids=True, **meta):
    actions = torch.tensor([5, 6, 7]) if ids else None
    return [
        Rollout(
            Prompt(f"p{i}", CHAT if chat else "2+2?", {k: v[i] for k, v in meta.items()}), t, actions, group=i, origin=Origin(version=12)
        )
        for i, t in enumerate(texts)
    ]


def values(reward, rows):
    return [s.value for s in reward(rows)]


# ---------------------------------------------------------------- TRL


def trl_format_reward(completions, **kwargs):
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, content) else 0.0 for content in contents]


def trl_correctness(prompts, completions, completion_ids, answer, trainer_state, log_extra, log_metric, **kwargs):
    assert prompts == ["2+2?"] * len(completions)
    assert completion_ids[0] == [5, 6, 7]
    assert trainer_state.global_step == 12
    assert kwargs["source"] == ["a", "b", "c"]
    extracted = [re.search(r"\d+", c) for c in completions]
    log_extra("extracted", [m.group() if m else "" for m in extracted])
    log_extra("length", [len(c) for c in completions])
    log_metric("found", sum(m is not None for m in extracted) / len(extracted))
    return [None if m is None else float(m.group() == a) for m, a in zip(extracted, answer, strict=True)]


async def trl_async(prompts, completions, **kwargs):
    await asyncio.sleep(0)
    return [float(len(c)) for c in completions]


class TrlObject:
    __name__ = "trl_object"

    def __call__(self, completions, solution, **kwargs):
        return [float(c == s) for c, s in zip(completions, solution, strict=True)]


def test_trl_conversational():
    rows = rollouts("<think>a</think><answer>b</answer>", "b", chat=True)
    reward = adapt(trl_format_reward)
    assert reward.name == "trl_format_reward"
    assert values(reward, rows) == [1.0, 0.0]


def test_trl_standard_with_columns_logs_state_and_none():
    rows = rollouts("it is 4", "it is 5", "dunno", answer="444", source="abc")
    scores = adapt(trl_correctness)(rows)
    assert [s.value for s in scores[:2]] == [1.0, 0.0]
    assert scores[2].abstained
    assert dict(scores[0].parts) == {"length": 7.0, "found": pytest.approx(2 / 3)}  # texts are for people, not for metrics


def test_trl_async_object_and_class():
    assert values(adapt(trl_async), rollouts("a", "bb")) == [1.0, 2.0]
    assert values(adapt(TrlObject()), rollouts("4", "5", solution="44")) == [1.0, 0.0]
    assert adapt(TrlObject).name == "trl_object"


def test_rewards_that_ship_with_trl():
    trl_rewards = pytest.importorskip("trl.rewards")
    rows = rollouts("<think>\nhm\n</think>\nIt is \\boxed{4}", "\\boxed{5}", chat=True, solution=["$4$", "$4$"])
    assert values(adapt(trl_rewards.think_format_reward), rows) == [1.0, 0.0]
    assert values(adapt(trl_rewards.accuracy_reward), rows) == [1.0, 0.0]


# ---------------------------------------------------------------- verl


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source == "openai/gsm8k":
        found = re.findall(r"#### (\-?[0-9\.\,]+)", solution_str)
        correct = bool(found) and found[-1] == ground_truth
        return {"score": 1.0 if correct else 0.0, "acc": correct, "pred": found[-1] if found else ""}
    assert extra_info["split"] == "train"
    return float(solution_str == ground_truth)


def verl_batched(data_sources, solution_strs, ground_truths, extra_infos):
    return [{"score": float(s == g), "n": len(d)} for d, s, g in zip(data_sources, solution_strs, ground_truths, strict=True)]


def test_verl_rows_as_its_parquet_holds_them():
    spec = {"style": "rule", "ground_truth": "4"}
    rows = rollouts(
        "so #### 4", "#### 5", "4", data_source=["openai/gsm8k"] * 2 + ["x"], reward_model=[spec] * 3, extra_info=[{"split": "train"}] * 3
    )
    scores = adapt(compute_score)(rows)
    assert [s.value for s in scores] == [1.0, 0.0, 1.0]
    assert dict(scores[0].parts) == {"acc": 1.0}
    batched = adapt(verl_batched)(rows)
    assert [s.value for s in batched] == [0.0, 0.0, 1.0]
    assert dict(batched[2].parts) == {"n": 1.0}


# ---------------------------------------------------------------- OpenRLHF


def reward_func(queries, prompts, labels, **kwargs):
    rewards = torch.tensor([float(q.removeprefix(p) == l) for q, p, l in zip(queries, prompts, labels, strict=True)])
    return {"rewards": rewards, "scores": rewards.clamp(0, 1), "extra_logs": {"dummy": rewards + 1}}


def reward_func_tensor(queries, prompts, labels):
    return torch.tensor([[float(len(q))] for q in queries])


def test_openrlhf():
    rows = rollouts("4", "5", label="44")
    scores = adapt(reward_func)(rows)
    assert [s.value for s in scores] == [1.0, 0.0]
    assert dict(scores[0].parts) == {"scores": 1.0, "dummy": 2.0}
    assert values(adapt(reward_func_tensor), rows) == [5.0, 5.0]


# ---------------------------------------------------------------- verifiers


def correct_answer(completion, answer, parser, **kwargs):
    assert {"prompt", "state", "info", "task"} <= set(kwargs)
    return 1.0 if parser.parse_answer(completion) == answer else 0.0


async def last_message(prompt, completion, state, info, task) -> float:
    assert prompt[0]["role"] == "user"
    assert state["completion"] == completion
    return float(completion[-1]["content"] == info["gold"])


def best_of_group(completions, answers, states, **kwargs):
    lengths = [len(c[-1]["content"]) for c in completions]
    return [1.0 if n == max(lengths) else 0.0 for n in lengths]


def test_verifiers_functions_by_name():
    rows = rollouts("<think>x</think> 4", "5", chat=True, answer="44", info=[{"gold": "5"}] * 2)
    assert values(adapt(correct_answer), rows) == [1.0, 0.0]
    assert values(adapt(last_message), rows) == [0.0, 1.0]
    assert values(adapt(best_of_group), rows) == [1.0, 1.0]  # two groups of one
    assert values(adapt(best_of_group), [r.with_(group=0, prompt=rows[0].prompt) for r in rows]) == [1.0, 0.0]


def test_a_verifiers_rubric():
    rubric = SimpleNamespace(funcs=[correct_answer, last_message], weights=[1.0, 0.5])
    rows = rollouts("4", "5", chat=True, answer="44", info=[{"gold": "5"}] * 2)
    scores = adapt(rubric)(rows)
    assert [s.value for s in scores] == [1.0, 0.5]
    assert dict(scores[1].parts) == {"correct_answer": 0.0, "last_message": 1.0}


# ---------------------------------------------------------------- others


def test_plain_functions_also_with_unknown_names():
    rows = rollouts("abc")
    assert values(adapt(lambda prompt, text: len(prompt) - len(text)), rows) == [1.0]
    assert values(adapt(lambda text: len(text)), rows) == [3.0]
    assert values(adapt(lambda p, t: len(p) - len(t)), rows) == [1.0]
    assert values(adapt(lambda x: len(x)), rows) == [3.0]
    assert values(adapt(len), rows) == [3.0]


def test_open_instruct_slime_eval_protocol_and_images():
    class Verifier:
        def __call__(self, tokenized_prediction, prediction, label, query=None, rollout_state=None):
            assert tokenized_prediction == [5, 6, 7]
            return SimpleNamespace(score=float(prediction == label), cost=0.0, reasoning="compared")

    async def custom_rm(args, sample, **kwargs):
        return float(sample.response == sample.label)

    def evaluate(messages, ground_truth=None, **kwargs):
        return SimpleNamespace(score=float(messages[-1]["content"] == ground_truth), is_score_valid=ground_truth != "?", reason="r")

    rows = rollouts("4", "5", label="44", ground_truth="4?")
    assert values(adapt(Verifier()), rows) == [1.0, 0.0]
    assert values(adapt(custom_rm), rows) == [1.0, 0.0]
    assert [s.abstained for s in adapt(evaluate)(rows)] == [False, True]

    def jpeg(images, prompts, metadata):
        return torch.stack([i.mean() for i in images]), {}

    pictures = [Rollout(Prompt("p", "a cat", {}), torch.full((2, 2), float(k))) for k in range(3)]
    assert values(adapt(jpeg), pictures) == [0.0, 1.0, 2.0]


def test_a_reward_stays_what_it_is():
    assert adapt(exact_match) is exact_match
    assert adapt(exact_match, settings={"tag": ""}).settings == {"tag": ""}
    assert adapt(adapt(trl_async)).name == "trl_async"


# ---------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("result", "got"),
    [([1.0], "1 values"), (1.0, r"1\.0 \(float\)"), (None, r"None \(NoneType\)"), ("good", r"'good' \(str\)"), (torch.ones(3), "3 values")],
)
def test_wrong_shape_of_a_batch(result, got):
    def scored(completions, **kwargs):
        return result

    with pytest.raises(UserError, match=rf"(?s)'scored' returned {got} for 2 rollouts, expected a list of 2\nhint: "):
        adapt(scored)(rollouts("a", "b"))


@pytest.mark.parametrize("bad", [float("inf"), "good"])
def test_infinite_and_text_values_in_a_batch(bad):
    def scored(completions, **kwargs):
        return [0.0, bad]

    with pytest.raises(UserError, match=r"'scored' returned .* for rollout 'p1', expected a finite number"):
        adapt(scored)(rollouts("a", "b"))


def test_a_batch_that_raises_abstains_with_the_reason():
    def scored(completions, **kwargs):
        return kwargs["nothing"]

    scores = adapt(scored)(rollouts("a", "b"))
    assert all(s.abstained and s.note.startswith("raised KeyError: 'nothing'") for s in scores)


def test_missing_columns_and_unusable_things_are_errors():
    def f(completions, solution):
        return []

    with pytest.raises(UserError, match=r"(?s)'f' asks for 'solution'.*columns: soluton.*did you mean 'soluton'"):
        dry_run(adapt(f), rollouts("a", soluton="x"))
    with pytest.raises(UserError, match="asks for 'gold'"):
        dry_run(adapt(lambda prompt, text, gold: 1.0), rollouts("a"))
    with pytest.raises(UserError, match="expected a function"):
        adapt(3)
    with pytest.raises(UserError, match="bare model"):
        adapt(torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="no parameter 'x'"):
        adapt(lambda text: 1.0, settings={"x": 1})


# ---------------------------------------------------------------- and back


def test_exports():
    trl = to_trl(exact_match)
    assert trl.__name__ == "exact_match"
    assert trl(prompts=["q", "q"], completions=["4", "5"], completion_ids=[[1], [2, 3]], answer=["4", None], trainer_state=None) == [
        1.0,
        None,
    ]
    assert trl(prompts=[CHAT], completions=[[{"role": "assistant", "content": "4"}]], answer=["4"]) == [1.0]
    assert to_verl(exact_match)("x", "4", "4") == {"score": 1.0, "abstained": 0.0}
    assert to_verl(exact_match)("x", "4", None) == {"score": 0.0, "abstained": 1.0}
    assert values(adapt(to_trl(format_tags)), rollouts("x")) == [0.0]
