"""Rated sentences as ranked lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.rng import Key
from guerdon.data.human_ratings import PROMPTS, RatedSentence, messages, rating_lists
from guerdon.errors import UserError


def rated(domain, number, mean):
    return RatedSentence(f"{domain}/{number}", domain, f"{domain}/{number}", f"{domain} sentence {number}", mean, (round(mean),))


def sentences(movie=23, tweet=14):
    return [rated("movie", i, (7 * i % 17) / 2 - 4) for i in range(movie)] + [rated("tweet", i, (5 * i % 9) - 4.0) for i in range(tweet)]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 7), st.integers(0, 3))
def test_every_sentence_stands_in_one_list_ranked(movie, tweet, size, seed):
    given_ = {s.id: s for s in sentences(movie, tweet)}
    lists = rating_lists(list(given_.values()), size=size, key=Key(seed))
    assert len(lists) == movie // size + tweet // size
    ids = [r.prompt.id for p in lists for r in p.ranked]
    assert len(ids) == len(set(ids)) == size * len(lists)
    for p in lists:
        assert len(p.ranked) == size
        domains = {given_[r.prompt.id].domain for r in p.ranked}
        assert domains == {p.prompt.meta["domain"]}
        assert p.prompt.content == messages(*domains)
        ratings = [r.prompt.meta["rating"] for r in p.ranked]
        assert ratings == sorted(ratings, reverse=True)
        assert [r.content for r in p.ranked] == [given_[r.prompt.id].text for r in p.ranked]
        assert ratings == [given_[r.prompt.id].mean for r in p.ranked]
    assert len({p.prompt.id for p in lists}) == len(lists)


def test_the_key_decides_who_meets_whom_and_nothing_else():
    def shown(lists):
        return [[r.prompt.id for r in p.ranked] for p in lists]

    given_ = sentences()
    one = shown(rating_lists(given_, size=4, key=Key(0)))
    assert one == shown(rating_lists(given_[::-1], size=4, key=Key(0)))
    assert one != shown(rating_lists(given_, size=4, key=Key(1)))
    assert {x.split("/")[0] for x in one[0] + one[1] + one[2]} == {"movie", "tweet"} <= set(PROMPTS)  # domains are mixed


def test_a_list_ranks_at_least_two():
    with pytest.raises(UserError, match="lists of 1 sentences\nhint: a list ranks at least 2"):
        rating_lists(sentences(), size=1, key=Key(0))
