"""Records that are token ids already: read as texts, learnt from, and refused when they are none."""

import json

import pytest

from guerdon import cli
from guerdon.data import load
from guerdon.errors import UserError
from guerdon.testing.models import small_model


@pytest.mark.parametrize("column", ["tokens", "input_ids"])
def test_the_first_token_is_given(column):
    [text] = load([{column: [5, 6, 7], "id": "a"}], "demos").items
    assert text.prompt.content == (5,)
    assert text.actions.tolist() == [6, 7]
    assert text.mask.all()
    assert (text.prompt.id, text.end) == ("a", "length")


@pytest.mark.parametrize("ids", [[5], [], [5, -1], [5, 6.5], [5, "x"]])
def test_what_is_no_text(ids):
    with pytest.raises(UserError, match="two or more whole numbers"):
        _ = load([{"tokens": [1, 2]}, {"tokens": ids}], "demos").items


def test_a_method_learns_from_them(tmp_path):
    data = tmp_path / "ids.jsonl"
    data.write_text("".join(json.dumps({"tokens": [i + 20, *range(40, 70)]}) + "\n" for i in range(4)))
    flags = {"model": small_model(tmp_path / "model"), "data": data, "out": tmp_path / "run", "length": 0, "batch": 2, "steps": 2}
    flags |= {"tokens": 3, "least": 4, "last": 4, "chunks": 2}
    assert cli.main(["run", "refine", *(x for name, value in flags.items() for x in (f"--{name}", str(value)))]) in (0, None)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
