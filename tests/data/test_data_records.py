"""Reading files: the rows come back as written, and what is wrong is named with its place."""

import gzip
import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from guerdon.data import load, read
from guerdon.errors import UserError

ROWS = [{"prompt": "a", "n": 1, "deep": {"x": [1, 2]}}, {"prompt": "b", "n": 2, "deep": {"x": []}}]


def rows_of(source, **options):
    return [r.row for r in read(source, **options)]


def lines(path, *texts):
    path.write_text("\n".join(texts) + "\n", "utf-8")
    return path


def test_every_file_type_gives_the_same_rows(tmp_path):
    text = [json.dumps(r) for r in ROWS]
    lines(tmp_path / "x.jsonl", *text)
    lines(tmp_path / "lines.json", *text)
    (tmp_path / "list.json").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "keyed.json").write_text(json.dumps({"version": {}, "data": ROWS}))
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write("\n".join(text))
    table = pa.Table.from_pylist(ROWS)
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    pa.feather.write_feather(table, tmp_path / "x.feather")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for path in sorted(p for p in tmp_path.iterdir()):
        assert rows_of(path) == ROWS, path.name
        assert rows_of(str(path), limit=1) == ROWS[:1], path.name
    assert rows_of(iter(ROWS)) == ROWS


def test_csv_and_tsv(tmp_path):
    (tmp_path / "x.csv").write_text('\ufeffprompt,note\n"a, b","line\nbreak"\nc,\n', "utf-8")
    (tmp_path / "x.tsv").write_text("prompt\tnote\na, b\tc\n", "utf-8")
    assert rows_of(tmp_path / "x.csv") == [{"prompt": "a, b", "note": "line\nbreak"}, {"prompt": "c", "note": None}]
    assert rows_of(tmp_path / "x.tsv") == [{"prompt": "a, b", "note": "c"}]
    assert [r.where.rpartition("/")[2] for r in read(tmp_path / "x.csv")] == ["x.csv line 3", "x.csv line 4"]


def test_blank_lines_count_but_give_no_row(tmp_path):
    path = lines(tmp_path / "x.jsonl", '{"prompt": "a"}', "", '{"prompt": "b"}')
    assert [r.where.rpartition("/")[2] for r in read(path)] == ["x.jsonl line 1", "x.jsonl line 3"]
    assert [r.index for r in read(path)] == [0, 1]


def test_hugging_face_objects_and_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    assert rows_of(data) == ROWS
    data.select([1]).save_to_disk(tmp_path / "one")
    assert rows_of(tmp_path / "one") == ROWS[1:]
    both = datasets.DatasetDict(train=data, test=data.select([1]))
    both.save_to_disk(tmp_path / "both")
    assert rows_of(tmp_path / "both") == ROWS
    assert rows_of(f"{tmp_path / 'both'}@test") == ROWS[1:]
    with pytest.raises(UserError, match=r"has no split 'tset'\nhint: .*did you mean 'test'"):
        read(f"{tmp_path / 'both'}@tset")
    with pytest.raises(UserError, match=r"hint: give one split: data\['train'\]"):
        read(both)


def test_a_folder_of_files(tmp_path):
    lines(tmp_path / "train-1.jsonl", json.dumps(ROWS[0]))
    lines(tmp_path / "train-2.jsonl", json.dumps(ROWS[1]))
    (tmp_path / "README.md").write_text("words")
    assert rows_of(tmp_path) == ROWS
    lines(tmp_path / "test.jsonl", json.dumps(ROWS[1]))
    assert rows_of(f"{tmp_path}@test") == ROWS[1:]
    with pytest.raises(UserError, match=r"no data files of split 'dev'\nhint: found: test.jsonl"):
        read(f"{tmp_path}@dev")
    (tmp_path / "more.json").write_text(json.dumps(ROWS))
    with pytest.raises(UserError, match=r"mixes .json and .jsonl files\nhint: name one"):
        read(tmp_path)


# ---------------------------------------------------------------- what is wrong, where, and the fix


def test_a_broken_line_is_named_with_the_text_around(tmp_path):
    path = lines(tmp_path / "x.jsonl", '{"prompt": "a"}', '{"prompt": "a very long text before", "n": 1 "m": 2}', '{"prompt": "c"}')
    with pytest.raises(UserError, match=r"x.jsonl line 2: broken JSON \(.*column 46\): '.*text before\", \"n\": 1 >>>\"m\": 2}'\nhint: "):
        read(path)
    assert len(read(path, limit=1)) == 1


def test_a_file_cut_off_in_the_middle(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b')
    with pytest.raises(UserError, match=r"line 2: broken JSON .*\nhint: .*cut off"):
        read(path)


def test_json_over_several_lines_in_a_jsonl_file(tmp_path):
    path = lines(tmp_path / "x.jsonl", "[", '{"prompt": "a"}', "]")
    with pytest.raises(UserError, match=r"line 1.*\nhint: .*rename the file to .json"):
        read(path)


BAD_FILES = [
    ("x.json", b'[{"prompt": "a"},\n {"prompt": }]', r"x.json line 2 column 13: broken JSON"),
    ("x.json", b'{"prompt": "a", "n": 1}', r"one JSON mapping with 'prompt', 'n', expected a list of rows\nhint: "),
    ("x.json", b'"text"', r"a JSON str, expected a list of rows"),
    ("x.json", b"[]", r"x.json holds no rows"),
    ("x.json", b'[{"prompt": "a"}, 3]', r"x.json row 2 is a int, expected a mapping"),
    ("x.jsonl", b"", r"x.jsonl is empty \(0 bytes\)"),
    ("x.jsonl", b"\n\n", r"x.jsonl holds no rows"),
    ("x.jsonl", b'{"prompt": "a"}\n["b"]\n', r"x.jsonl line 2 is a list, expected a mapping"),
    ("x.jsonl", b'{"prompt": "a"}\nnull\n', r"x.jsonl line 2 is null, expected a mapping"),
    ("x.jsonl", '{"prompt": "ä"}'.encode("latin-1"), r"x.jsonl is not UTF-8 text .*\nhint: convert"),
    ("x.jsonl.gz", b"not gzip", r"not a readable gzip file"),
    ("x.csv", b"prompt,n\na,1\nb,2,3\n", r"x.csv line 3: 3 cells, the header names 2\nhint: quote"),
    ("x.csv", b"prompt,n\na\n", r"x.csv line 2: 1 cells, the header names 2"),
    ("x.csv", b'prompt,n\n"a,1\n', r"x.csv line 2: broken CSV .*\nhint: is a quotation mark"),
    ("x.csv", b"prompt,n\n", r"x.csv holds no rows"),
    ("x.parquet", b"PAR1 nonsense", r"x.parquet is not a readable Parquet file"),
    ("x.arrow", b"nonsense" * 4, r"x.arrow is not a readable Arrow file"),
    ("x.txt", b"words", r"no reader for files ending in '.txt'\nhint: give a .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_missing_files_name_the_nearest(tmp_path):
    lines(tmp_path / "train.jsonl", '{"prompt": "a"}')
    with pytest.raises(UserError, match=r"no file .*trian.jsonl\nhint: did you mean 'train.jsonl'"):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere\nhint: check the path"):
        read(tmp_path / "nowhere" / "train.jsonl")
    with pytest.raises(UserError, match=r"no data set '/no/such/folder'\nhint: give a .jsonl"):
        read("/no/such/folder")
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match=r"holds no data files\nhint: found: nothing"):
        read(tmp_path / "void")


def test_wrong_arguments():
    with pytest.raises(UserError, match="limit=0"):
        read(ROWS, limit=0)
    with pytest.raises(UserError, match="the given list holds no rows"):
        read([])
    with pytest.raises(UserError, match=r"unknown kind of data 'pair'\nhint: did you mean 'pairs'"):
        load(ROWS, "pair")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="bad='ignore'"):
        load(ROWS, "prompts", bad="ignore")  # type: ignore[arg-type]


def test_no_network_for_a_hub_name(monkeypatch):
    datasets = pytest.importorskip("datasets")
    calls = []

    def offline(*args, **kwargs):
        calls.append((args, kwargs))
        raise ConnectionError("Couldn't reach 'org/name' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        UserError, match=r"hub data set 'org/name:main@test' could not be loaded: Couldn't reach .*\nhint: is there a network"
    ):
        read("org/name:main@test")
    assert calls == [(("org/name", "main"), {"split": "test", "streaming": False})]


def test_hub_errors_say_which_part_is_wrong(monkeypatch):
    datasets = pytest.importorskip("datasets")
    raised = ValueError("Unknown split \"dev\". Should be one of ['train'].")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: (_ for _ in ()).throw(raised))
    with pytest.raises(UserError, match=r"hint: pick a split: org/name@SPLIT"):
        read("org/name@dev")
    raised = ValueError("Config name is missing. Please pick one among the available configs: ['main', 'socratic']")
    with pytest.raises(UserError, match=r"hint: pick a config"):
        read("org/name")


def test_a_hub_data_set_is_read_like_any_other(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_list(ROWS))
    loaded = load("org/name", "prompts", limit=1)
    assert [p.content for p in loaded.items] == ["a"]
    assert loaded.detected.source == "org/name"
