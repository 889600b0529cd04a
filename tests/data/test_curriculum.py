"""A curriculum rises on the answers to its own level alone, and remembers where it was."""

import pytest

from guerdon.core.rng import Key
from guerdon.data import load, sources
from guerdon.data.curriculum import Curriculum
from guerdon.data.cursor import Cursor
from guerdon.errors import UserError
from guerdon.rewards.reasoning_gym import reasoning_gym
from guerdon.types import Prompt, Rollout


def counting(**how) -> Curriculum:
    return Curriculum(lambda level, i: Prompt(f"{level}/{i}", f"count to {10**level + i}", {"own": i}), 3, 5, **{"window": 4, **how})


def test_the_level_rises_when_enough_answers_are_right():
    rising = counting(raise_at=0.75)
    batch = Cursor(rising, 2, Key(0)).at(0)
    assert {p.meta["level"] for p in batch} == {0}
    rising.tell(batch, [True, True])
    assert (rising.level, rising.right, rising.seen) == (0, 2, 2)  # the window is not full
    rising.tell(batch, [True, False])
    assert (rising.level, rising.right, rising.seen) == (1, 0, 0)  # 3 of 4
    assert {p.content for p in rising} == {f"count to {10 + i}" for i in range(5)}
    rising.tell([rising[0]] * 4, [True, True, False, False])
    assert rising.level == 1  # 2 of 4: neither
    rising.tell([rising[0]] * 9, [True] * 9)
    rising.tell([rising[0]] * 9, [True] * 9)
    assert rising.level == 2  # the last one stays


def test_late_answers_do_not_count_and_falling_is_possible():
    rising = counting(raise_at=0.75, lower_at=0.5, start=1)
    old = [Prompt("x", "?", {"level": 0})] * 10
    rising.tell(old, [True] * 10)
    rising.tell([Prompt("y", "?")], [True])
    assert (rising.level, rising.seen) == (1, 0)
    rising.tell([rising[0]] * 4, [True, False, False, False])
    assert rising.level == 0
    rising.tell([rising[0]] * 4, [False] * 4)
    assert rising.level == 0


def test_it_goes_on_where_it_was():
    one, other = counting(), counting()
    one.tell([one[0]] * 6, [True] * 6)
    one.tell([one[0]] * 3, [True, False, True])
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == {"level": 1, "right": 2, "seen": 3}
    assert list(other) == list(one)


def test_it_is_a_sequence():
    rising = counting()
    assert len(rising) == 5
    assert rising[-1] == rising[4]
    assert rising[1:3] == [rising[1], rising[2]]
    assert rising[0].meta == {"own": 0, "level": 0}
    with pytest.raises(IndexError):
        rising[5]


@pytest.mark.parametrize("how", [{"start": 3}, {"window": 0}, {"raise_at": 0.2, "lower_at": 0.5}, {"raise_at": 0.0}])
def test_what_is_no_curriculum(how):
    with pytest.raises(UserError, match="hint:"):
        counting(**how)


# ---------------------------------------------------------------- reasoning-gym


def test_levels_of_a_task_follow_its_own_curriculum():
    pytest.importorskip("reasoning_gym")
    easy, hard = (load(f"reasoning-gym:chain_sum?size=20&level={level}", "prompts").items for level in (0, 3))
    assert {p.meta["metadata"]["num_terms"] for p in easy} == {2}
    assert {p.meta["metadata"]["num_terms"] for p in hard} == {2, 3, 4, 5}  # all levels up to its own
    fixed = load("reasoning-gym:chain_sum?size=20&level=3&max_digits=1", "prompts").items
    assert {p.meta["options"]["max_digits"] for p in fixed} == {1}


def test_a_curriculum_is_named_like_any_data():
    pytest.importorskip("reasoning_gym")
    rising = load("reasoning-gym:chain_sum?size=20&curriculum=0.7&window=16", "prompts").items
    assert isinstance(rising, Curriculum)
    assert (rising.raise_at, rising.window, rising.levels) == (0.7, 16, 11)
    assert [p.content for p in rising] == [p.content for p in load("reasoning-gym:chain_sum?size=20&level=0", "prompts").items]
    rising.tell(list(rising), [True] * 20)
    assert {p.meta["level"] for p in rising} == {1}
    answers = [Rollout(p, str(p.meta["answer"])) for p in rising]
    assert [s.value for s in reasoning_gym(answers)] == [1.0] * 20


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm_symbolic?level=0", "has no curriculum"),
        ("chain_sum?level=11", r"level=11.*\nhint: it has the levels 0 to 10"),
        ("chain_sum?window=5", "without curriculum"),
        ("chain_sum?curriculum=high", "expected numbers"),
        ("chain_sum?curriculum=1.5", "thresholds 0.0 and 1.5"),
    ],
)
def test_a_level_that_is_not_there(name, message):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match=message):
        sources.load(f"reasoning-gym:{name}", "prompts")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one task's data leave a file open
def test_every_task_gives_prompts_levels_and_verdicts():
    factory = pytest.importorskip("reasoning_gym.factory")
    from guerdon.data import reasoning_gym as gym

    without = set()
    for task in sorted(set(factory.DATASETS) - {"composite"}):  # a mixture of others, which has to be told which
        try:
            options = gym.levels(task, {})[0]
        except UserError:
            without.add(task)
            options = {}
        prompt, answer = gym.task_item(task, options, 2, 0, 1)
        [score] = reasoning_gym([Rollout(prompt, str(answer))])
        assert not score.abstained, (task, score.note)
        assert score.value == 1 or answer is None, (task, score.value, answer)
    assert without == {"acre", "gsm_symbolic", "list_functions", "knight_swap"}
