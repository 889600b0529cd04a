"""Named data sources: parsing on a small archive of the published layout, the real one where it is cached or can be fetched."""

import hashlib
import io
import itertools
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.data import human_ratings as hr
from guerdon.data import sources
from guerdon.data.human_ratings import RatedSentence, rating_pairs, vote_share
from guerdon.errors import UserError
from guerdon.rewards.reasoning_gym import reasoning_gym
from guerdon.types import Prompt, Rollout

FILES = {
    "movieReviewSnippets_GroundTruth.txt": "1\t2.5\tA joy &amp;amp; a ''feast''.\r\n2\t-1\tToo   tepid    biopic \r\n",
    "movieReviewSnippets_anonDataRatings.txt": "1\t2.5\t0.5\t[3, 2]\r\n2\t-1\t0\t[-1, -1]\r\n",
    "tweets_GroundTruth.txt": "1\t1.44\tYay &lt;3 ca\u0301f\r\n",
    "tweets_anonDataRatings.txt": "1\t2.25\t0.4\t[2, 2, 2, 3]\r\n",
    "amazonReviewSnippets_GroundTruth.txt": "1_1\t0\tit works.\r\n1_2\t-3\tit broke.\r\n2_1\t4\tgreat!\r\n",
    "amazonReviewSnippets_anonDataRatings.txt": "\ufeff1_2\t-3\t0\t[-3]\r\n1_1\t0\t1\t[1, -1]\r\n2_1\t4\t0\t[4, 4]\r\n",
    "nytEditorialSnippets_GroundTruth.txt": "7_1\t0.5\tYes.\r\n",
    "nytEditorialSnippets_anonDataRatings.txt": "7_1\t0.5\t0.5\t[0, 1]\r\n",
}


def rated(id: str, mean: float, text: str = "", domain: str = "movie", document: str = "") -> RatedSentence:
    return RatedSentence(id, domain, document or id, text or f"sentence {id}", mean, (round(mean),))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in FILES.items():
            data = text.encode()
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def real():
    try:
        return hr.human_ratings()
    except UserError as error:
        pytest.skip(f"neither cached nor fetchable: {error}")


# ---------------------------------------------------------------- parsing


def test_parse_joins_by_id_cleans_and_recomputes_the_mean(small):
    found = {s.id: s for s in hr.parse(small)}
    assert list(found) == ["movie/1", "movie/2", "tweet/1", "product/1_1", "product/1_2", "product/2_1", "editorial/7_1"]
    assert found["movie/1"] == RatedSentence("movie/1", "movie", "movie/1", 'A joy & a "feast".', 2.5, (3, 2))
    assert found["movie/2"].text == "Too tepid biopic"
    assert found["tweet/1"].text == "Yay <3 c\u00e1f"
    assert found["tweet/1"].mean == 2.25  # of the ratings, not the published 1.44
    assert found["product/1_2"].ratings == (-3,)  # another order, behind a byte-order mark
    assert found["product/1_1"].document == found["product/1_2"].document == "product/1"


def test_split_keeps_documents_whole_and_drops_what_train_holds():
    many = [rated(f"product/{d}_{i}", 0.0, domain="product", document=f"product/{d}") for d in range(50) for i in range(4)]
    copy = [rated(f"movie/{i}", 0.0, text="SENTENCE product/0_0" if i % 2 else "The same.") for i in range(200)]
    parts = hr.split_sentences(many + copy)
    documents = {side: {s.document for s in parts[side] if s.domain == "product"} for side in parts}
    assert len(documents["test"]) == 5
    assert len(documents["train"]) == 45
    assert not documents["test"] & documents["train"]
    seen = {s.text.casefold() for s in parts["train"]}
    assert not [s for s in parts["test"] if s.text.casefold() in seen]
    assert parts == hr.split_sentences(many + copy)


def test_a_duplicate_within_the_held_out_side_is_kept_once():
    away = hr.held_out(f"movie/{i}" for i in range(100))
    sentences = [rated(f"movie/{i}", 0.0, text="Eh." if f"movie/{i}" in away else "") for i in range(100)]
    assert [s.text for s in hr.split_sentences(sentences)["test"]] == ["Eh."]


# ---------------------------------------------------------------- fetching


def test_without_an_index_the_error_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path / "home"))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="could not be fetched") as caught:
        hr.human_ratings()
    assert "\nhint: connect to a package index once" in str(caught.value)
    assert not (tmp_path / "home").exists()


def sdist(folder, inner: bytes):
    path = folder / "vaderSentiment-3.3.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"vaderSentiment-3.3.2/additional_resources/{hr.ARCHIVE}")
        info.size = len(inner)
        tar.addfile(info, io.BytesIO(inner))
    return path


def test_a_damaged_cache_is_fetched_again_and_a_good_one_is_not(tmp_path, monkeypatch, small):
    good, fetched = small.read_bytes(), []

    def download(folder):
        fetched.append(folder)
        path = sdist(folder, good)
        monkeypatch.setattr(hr, "SDIST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    monkeypatch.setattr(hr, "ARCHIVE_SHA256", hashlib.sha256(good).hexdigest())
    monkeypatch.setattr(hr, "_download", download)
    kept = tmp_path / "human-ratings" / hr.ARCHIVE
    kept.parent.mkdir()
    kept.write_bytes(good[:-7])
    assert hr.archive() == kept
    assert kept.read_bytes() == good
    assert [f.name for f in kept.parent.iterdir()] == [hr.ARCHIVE]
    hr.archive()
    assert len(fetched) == 1


def test_a_foreign_file_from_the_index_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hr, "_download", lambda folder: sdist(folder, b"something else"))
    with pytest.raises(UserError, match=r"sha256 [0-9a-f]{64}, expected 5d7c06e0"):
        hr.archive()
    assert not (tmp_path / "home").exists()


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("GUERDON_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hr.cache_dir() == tmp_path / "guerdon"
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path / "own"))
    assert hr.cache_dir() == tmp_path / "own"


# ---------------------------------------------------------------- pairs

votes = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


@given(votes, votes)
def test_vote_share_counts_pairs_of_raters_ties_half(a, b):
    each = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in itertools.product(a, b)]
    assert vote_share(a, b) == pytest.approx(sum(each) / len(each), abs=1e-12)
    assert vote_share(a, b) + vote_share(b, a) == pytest.approx(1.0, abs=1e-12)


@given(st.lists(st.integers(-80, 80), min_size=2, max_size=12), st.sampled_from([0.0, 0.5, 1.0]))
def test_all_pairs_above_the_gap_can_be_drawn_each_once(twentieths, gap):
    sentences = [rated(f"movie/{i}", v / 20) for i, v in enumerate(twentieths)]
    wide = {(a.id, b.id) for a in sentences for b in sentences if round(20 * a.mean) - round(20 * b.mean) > round(20 * gap)}
    assert hr.count_pairs(sentences, gap) == len(wide)
    drawn = rating_pairs(sentences, gap=gap, n=len(wide), key=Key(0))
    assert {(p.prompt.meta["chosen_id"], p.prompt.meta["rejected_id"]) for p in drawn} == wide
    assert len(drawn) == len(wide)
    with pytest.raises(UserError, match=f"{len(wide) + 1} pairs of domain 'movie' asked for, but only {len(wide)}"):
        rating_pairs(sentences, gap=gap, n=len(wide) + 1, key=Key(0))


def test_a_pair_carries_margin_label_and_its_domain():
    high = RatedSentence("tweet/1", "tweet", "tweet/1", "yay", 1.5, (1, 2))
    low = RatedSentence("tweet/2", "tweet", "tweet/2", "meh", 0.0, (-1, 1))
    [pair] = rating_pairs([low, high], gap=1.0, n=1, key=Key(3))
    assert [r.content for r in pair.ranked] == ["yay", "meh"]
    assert (pair.margin, pair.label, pair.source) == (1.5, 0.875, "human-ratings")
    assert pair.prompt.content == [{"role": "user", "content": "Write a tweet."}]
    assert pair.prompt.meta == {"domain": "tweet", "chosen_id": "tweet/1", "rejected_id": "tweet/2"}


def test_domains_share_the_pairs_and_never_mix():
    sentences = [rated(f"{d}/{i}", i / 10, domain=d) for d in ("movie", "tweet", "product") for i in range(-40, 41)]
    drawn = rating_pairs(sentences, n=100, key=Key(1))
    ids = [(p.prompt.meta["chosen_id"].split("/")[0], p.prompt.meta["rejected_id"].split("/")[0]) for p in drawn]
    assert all(a == b for a, b in ids)
    assert sorted(ids.count((d, d)) for d in ("movie", "tweet", "product")) == [33, 33, 34]
    assert ids[:10] != sorted(ids)[:10]
    assert drawn == rating_pairs(sentences, n=100, key=Key(1))
    assert drawn != rating_pairs(sentences, n=100, key=Key(2))


# ---------------------------------------------------------------- the real ratings


def test_real_ratings_are_the_published_ones(real):
    counts = {d: (len(hr.human_ratings(d)), len(hr.human_ratings(d, "test"))) for d in hr.PROMPTS}
    assert counts == {"movie": (9545, 1060), "tweet": (3780, 413), "product": (3356, 351), "editorial": (4692, 495)}
    everything = real + hr.human_ratings(split="test")
    assert all(s.text and len(s.ratings) >= 15 and set(s.ratings) <= set(range(-4, 5)) for s in everything)
    assert not [s for s in everything if "&amp;" in s.text or "  " in s.text or "''" in s.text]
    first = next(s for s in everything if s.id == "movie/3")
    assert (first.text, first.mean, len(first.ratings)) == ("Effective but too tepid biopic", -0.6, 15)


def test_real_pairs_prompts_and_demos(real):
    pairs = sources.load("human-ratings:movie?split=test&n=300&gap=1.5", "pairs", Key(5))
    assert len(pairs) == 300
    assert all(p.margin is not None and p.margin > 1.5 and 0.5 < p.label <= 1 for p in pairs)
    assert len(sources.load("human-ratings", "pairs")) == len(real)
    prompts = sources.load("human-ratings?n=8", "prompts")
    assert [p.meta["domain"] for p in prompts] == ["movie", "tweet", "product", "editorial"] * 2
    assert len({p.id for p in prompts}) == 8
    demos = sources.load("human-ratings:tweet", "demos")
    assert len(demos) == 3780
    assert all(d.actions is None and d.end == "stop" and isinstance(d.content, str) for d in demos)


# ---------------------------------------------------------------- reasoning-gym


def test_reasoning_gym_prompts_hold_what_the_verifier_needs():
    prompts = sources.load("reasoning-gym:chain_sum?size=5&seed=1&num_terms=2", "prompts")
    assert len(prompts) == 5
    assert {p.meta["metadata"]["num_terms"] for p in prompts} == {2}
    assert prompts[0].meta["task"] == "chain_sum"
    assert prompts == sources.load("reasoning-gym:chain_sum?size=5&seed=1&num_terms=2", "prompts")
    assert prompts != sources.load("reasoning-gym:chain_sum?size=5&seed=2&num_terms=2", "prompts")


def test_reasoning_gym_reward_is_the_task_s_own_score():
    demos = sources.load("reasoning-gym:chain_sum?size=4", "demos")
    assert [s.value for s in reasoning_gym(demos)] == [1.0] * 4
    tagged = [d.with_(content=f"Let me think: 12. <answer> {d.content} </answer>") for d in demos]
    assert [s.value for s in reasoning_gym(tagged)] == [1.0] * 4
    wrong = [d.with_(content=str(int(d.content) + 1)) for d in demos]
    assert max(s.value for s in reasoning_gym(wrong)) < 0.5


def test_reasoning_gym_reward_abstains_where_it_cannot_judge():
    foreign, *broken = [
        Rollout(Prompt("a", "1 + 1 ="), "2"),
        Rollout(Prompt("b", "?", {"task": "chain_sum", "answer": object(), "metadata": {}}), "2"),
        Rollout(Prompt("c", "?", {"task": "no_such_task", "answer": "2", "metadata": {}}), "2"),
    ]
    assert "meta lacks task, answer, metadata" in reasoning_gym([foreign])[0].note
    assert [s.abstained and "raised" in s.note for s in reasoning_gym(broken)] == [True, True]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("human-rating", "pairs", r"unknown data source 'human-rating'\nhint: did you mean 'human-ratings'"),
        ("human-ratings:movies", "pairs", r"unknown domain 'movies'.*\nhint: did you mean 'movie'"),
        ("human-ratings?split=tests", "demos", r"unknown split 'tests'.*\nhint: did you mean 'test'"),
        ("human-ratings?gaps=2", "pairs", r"unknown option 'gaps'.*\nhint: did you mean 'gap'"),
        ("human-ratings?gap=9", "pairs", r"option gap=9, expected a number in \[0, 8\)"),
        ("human-ratings?n=0", "prompts", r"option n=0, expected a whole number of at least 1"),
        ("human-ratings?n", "prompts", r"option 'n' .* has no value\nhint: write human-ratings\?n=VALUE"),
        ("human-ratings", "pair", r"unknown kind 'pair' of data\nhint: did you mean 'pairs'"),
        ("reasoning-gym:chain_sums", "prompts", r"unknown reasoning-gym task 'chain_sums'\nhint: did you mean 'chain_sum'"),
        ("reasoning-gym:chain_sum?num_term=2", "prompts", r"unknown option 'num_term'"),
        ("reasoning-gym:chain_sum?min_terms=9", "prompts", r"refuses these options"),
        ("reasoning-gym:chain_sum", "pairs", r"has answers, not preference pairs\nhint: "),
    ],
)
def test_a_wrong_name_is_told_the_way_out(name, kind, message, request):
    if "movies" in name or "split" in name or name == "human-ratings?n=0":
        request.getfixturevalue("real")  # these are noticed once the ratings are there
    with pytest.raises(UserError, match=message):
        sources.load(name, kind)


def test_names_are_taken_apart():
    assert sources.parse_name("a:b?x=1&y=true&z=hello&w=[1,2]&v=0.5") == (
        "a",
        "b",
        {"x": 1, "y": True, "z": "hello", "w": [1, 2], "v": 0.5},
    )
    assert sources.is_source("human-ratings:movie?split=test")
    assert not sources.is_source("data/pairs.jsonl")


# ---------------------------------------------------------------- a few raters


def opinions(id: str, *ratings: int) -> RatedSentence:
    return RatedSentence(id, "movie", id, f"sentence {id}", sum(ratings) / len(ratings), ratings)


def test_one_rater_is_wrong_as_often_as_its_ratings_say():
    sentences = [opinions(f"a{i}", 3, 1, 1, 1) for i in range(60)] + [opinions(f"b{i}", 2, 0, 0, 0) for i in range(60)]
    pairs = rating_pairs(sentences, gap=0.5, n=2000, key=Key(0))
    noisy = hr.few_raters(pairs, sentences, key=Key(1))
    wrong = [p.prompt.meta.get("flipped", False) for p in noisy]
    # 16 draws: 3 > 2, 3 > 0 (3), 1 < 2 (3), 1 > 0 (9); none is equal
    assert sum(wrong) / 2000 == pytest.approx(3 / 16, abs=0.03)
    for before, after, turned in zip(pairs, noisy, wrong, strict=True):
        assert [r.content for r in after.ranked] == [r.content for r in before.ranked[:: -1 if turned else 1]]
        assert (after.margin, after.label) == (None, 1.0)
        assert after.prompt.meta["chosen_id"] == before.prompt.meta["rejected_id" if turned else "chosen_id"]
    assert noisy == hr.few_raters(pairs, sentences, key=Key(1)) != hr.few_raters(pairs, sentences, key=Key(2))
    assert noisy[5:] == hr.few_raters(pairs[5:], sentences, key=Key(1))


def test_all_raters_are_never_wrong_and_equal_ratings_are_drawn_again():
    sentences = [opinions("a", 2, 2, 1), opinions("b", 2, 2, 0)]
    pairs = rating_pairs(sentences, gap=0.0, n=1, key=Key(0))
    for seed in range(40):
        [all_of_them] = hr.few_raters(pairs, sentences, raters=20, key=Key(seed))
        assert "flipped" not in all_of_them.prompt.meta
    some = [hr.few_raters(pairs, sentences, key=Key(seed))[0].prompt.meta.get("flipped", False) for seed in range(300)]
    assert sum(some) / 300 == pytest.approx(2 / 5, abs=0.09)  # of five draws that differ, 1 < 2 twice, 2 > 0 twice, 1 > 0 once


def test_raters_of_other_sentences_are_refused():
    pairs = rating_pairs([opinions("a", 3), opinions("b", 1)], n=1, key=Key(0))
    with pytest.raises(UserError, match="not of these sentences"):
        hr.few_raters(pairs, [opinions("a", 3)], key=Key(0))
    with pytest.raises(UserError, match="0 raters"):
        hr.few_raters(pairs, [], raters=0, key=Key(0))


def test_raters_by_name(real):
    def wrong(raters):
        pairs = sources.load(f"human-ratings:movie?split=test&n=400&gap=0.1&raters={raters}", "pairs", key=Key(3))
        return sum(p.prompt.meta.get("flipped", False) for p in pairs)

    assert 30 < wrong(1) < 160
    assert wrong(9) < wrong(1) / 2
    with pytest.raises(UserError, match="option raters"):
        sources.load("human-ratings:movie?raters=0", "pairs")
