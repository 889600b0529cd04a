"""The prompt regressor: features, saving, and what it refuses."""

import pytest
import torch

from guerdon.core.rng import Key
from guerdon.errors import UserError
from guerdon.policies.prompt_regressor import HashedWords, PromptRegressor
from guerdon.types import Prompt, Rollout


def test_hashed_words():
    read = HashedWords(64)
    a, b, c, empty = read(["Add 3 and 4", "add  3, and 4!", "and 4 add 3", ""])
    assert torch.equal(a, b) and torch.equal(a, c)
    assert float(a.norm()) == pytest.approx(1) and float(empty.norm()) == 0
    twice = read(["add add"])[0]
    torch.testing.assert_close(twice, read(["add"])[0])
    assert torch.equal(read(["x"]), HashedWords(64)(["x"]))


def test_chances_are_those_of_the_rows(tmp_path):
    regressor = PromptRegressor(HashedWords(), hidden=8, key=Key(3))
    queries, prompts = ["q one", "q two"], ["p", "r", "s"]
    rows = [Rollout(Prompt("x", q), p) for q in queries for p in prompts]
    want = torch.sigmoid(regressor.score(rows)).view(2, 3)
    torch.testing.assert_close(regressor.chances(queries, prompts), want)
    assert regressor.choose(queries, prompts) == want.argmax(1).tolist()
    regressor.save(tmp_path)
    torch.testing.assert_close(PromptRegressor.load(tmp_path).chances(queries, prompts), want)


def test_refused():
    with pytest.raises(UserError, match="hidden 0"):
        PromptRegressor(HashedWords(), hidden=0)
    regressor = PromptRegressor(HashedWords())
    with pytest.raises(UserError, match="expected at least one"):
        regressor.chances([], ["p"])
    with pytest.raises(UserError, match="plain text"):
        regressor.collate([Rollout(Prompt("x", [{"role": "user", "content": "q"}]), "p")])
    with pytest.raises(UserError, match="chooses"):
        regressor.sample([], 1, Key(0))
