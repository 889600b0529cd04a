from textwrap import dedent

import pytest
import torch

from guerdon.errors import UserError
from guerdon.rewards import Isolated
from guerdon.types import Prompt, Rollout


def rows(*texts):
    return [Rollout(Prompt(f"p{i}", "q", {"answer": "4"}), t, torch.tensor([1, 2])) for i, t in enumerate(texts)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        dedent("""
        import os
        def odd(prompt, text, scale=1.0):
            if text == "hang":
                return 9 ** 9 ** 9
            if text == "die":
                os._exit(3)
            return {"score": scale * len(text), "pid": os.getpid()} if text else None
        def wrong(text):
            return "good"
        """)
    )
    return path


@pytest.mark.slow  # a worker with torch takes seconds to start, and this one is killed twice
def test_a_reward_in_its_own_process_survives_hangs_and_deaths(file):
    reward = Isolated(f"{file}:odd(scale=2.0)", timeout_s=1.0)
    assert reward.name == "odd"
    scores = reward(rows("abc", ""))
    assert scores[0].value == 6.0
    assert scores[0].spans[0].stop == 2
    assert scores[1].abstained
    hung = reward(rows("abc", "hang"))
    assert [s.note for s in hung] == ["did not return within 1 s"] * 2
    assert "worker process died" in reward(rows("die"))[0].note
    again = reward(rows("abc"))
    assert again[0].value == 6.0
    assert again[0].parts["pid"] != scores[0].parts["pid"]


def test_wrong_values_are_errors_here_too(file):
    with pytest.raises(UserError, match=r"'wrong' returned 'good' \(str\)"):
        Isolated(f"{file}:wrong")(rows("a"))
