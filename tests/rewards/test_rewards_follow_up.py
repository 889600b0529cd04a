"""Follow-ups: the numbers of a plain loop over transformers, turns of the user, windows, and settings that cannot be."""

from __future__ import annotations

import pytest
import torch

from guerdon.errors import UserError
from guerdon.policies.codec import Codec
from guerdon.policies.refs import Frozen
from guerdon.policies.text import TextPolicy
from guerdon.rewards import public_rewards
from guerdon.rewards.follow_up import FOLLOW_UPS, FollowUpLikelihood
from guerdon.rewards.resolve import Spec, load
from guerdon.testing.models import small_model, small_tokenizer
from guerdon.types import Prompt, Rollout

SETS = {"kind": (["How nice.", "Good"], ["Bad food"]), "true": (["Yes"], ["No", "It is too late"])}
ROLLOUTS = [Rollout(Prompt("a", "How was the food?"), "It was great."), Rollout(Prompt("b", "What is 4 times 7?"), "")]


@pytest.fixture(scope="module")
def rater(tmp_path_factory):
    return TextPolicy.load(small_model(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return TextPolicy.load(small_model(tmp_path_factory.mktemp("raw"), tokenizer=small_tokenizer(template=None)))


def token_logp(policy, context, said, *, shift=1, raw=False):
    """Log-probabilities (or raw logits) of the text's tokens after the context, by one plain pass."""
    ids = policy.tokenizer(said, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[*context, *ids]])).logits[0].double()
    at = logits if raw else logits.log_softmax(-1)
    return torch.stack([at[len(context) + t - shift, token] for t, token in enumerate(ids)])


def by_hand(policy, context, **how):
    side = lambda texts: sum(float(token_logp(policy, context, t, **how).mean()) for t in texts) / len(texts)
    return {name: side(good) - side(bad) for name, (good, bad) in SETS.items()}


def chat_ids(policy, rollout):
    text = f"<|user|>\n{rollout.prompt.content}\n<|assistant|>\n{rollout.content}<|end|>\n<|user|>\n"
    return policy.tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_follow_up_is_the_users_next_turn(rater, batch_size):
    scores = FollowUpLikelihood(Frozen(rater), follow_ups=SETS, batch_size=batch_size)(ROLLOUTS)
    for rollout, score in zip(ROLLOUTS, scores, strict=True):
        expected = by_hand(rater, chat_ids(rater, rollout))
        assert score.parts == pytest.approx(expected, abs=1e-4)
        assert score.value == pytest.approx(sum(expected.values()) / 2, abs=1e-4)
    assert abs(scores[0].value - scores[1].value) > 1e-3


def test_raw_logits_are_read_at_the_token_itself(rater):
    score = FollowUpLikelihood(rater, follow_ups=SETS, mode="raw_logit")(ROLLOUTS[:1])[0]
    assert score.parts == pytest.approx(by_hand(rater, chat_ids(rater, ROLLOUTS[0]), shift=0, raw=True), abs=1e-3)


def test_without_a_template_the_dialogue_is_plain_text(raw):
    score = FollowUpLikelihood(raw, follow_ups=SETS, between="\n> ")(ROLLOUTS[:1])[0]
    parts = ("How was the food?", "It was great.", "\n> ")
    context = [i for part in parts for i in raw.tokenizer(part, add_special_tokens=False).input_ids]
    assert score.parts == pytest.approx(by_hand(raw, context), abs=1e-4)


def test_a_long_context_loses_its_beginning(rater):
    long = Rollout(ROLLOUTS[0].prompt, "The road is long. " * 40)
    score = FollowUpLikelihood(rater, follow_ups=SETS)([long])[0]
    longest = max(len(rater.tokenizer(t, add_special_tokens=False).input_ids) for s in SETS.values() for side in s for t in side)
    assert score.parts == pytest.approx(by_hand(rater, chat_ids(rater, long)[-(rater.max_length - longest) :]), abs=1e-4)


def test_categories_can_be_chosen(rater):
    whole, one = FollowUpLikelihood(rater, follow_ups=SETS), FollowUpLikelihood(rater, ("true",), SETS)
    assert one(ROLLOUTS)[0].value == pytest.approx(whole(ROLLOUTS)[0].parts["true"], abs=1e-6)
    assert list(one(ROLLOUTS)[0].parts) == ["true"]


def test_the_command_line_knows_it():
    assert "follow_up" in public_rewards()
    reward, _ = load(Spec.parse('follow_up(categories=("relevance","correctness"))=0.5'))
    assert isinstance(reward, FollowUpLikelihood)
    assert [len(s) for s in reward._sets.values()] == [2, 2]
    assert len(reward.texts) == 40


def test_the_follow_ups_are_a_hundred_and_twenty_different_texts():
    assert list(FOLLOW_UPS) == ["understanding", "relevance", "correctness", "engagingness", "informativeness", "instruction_following"]
    texts = [t for sides in FOLLOW_UPS.values() for side in sides for t in side]
    assert all(len(side) == 10 for sides in FOLLOW_UPS.values() for side in sides)
    assert len(set(texts)) == 120


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categories": ("truth",)}, "no follow-ups of category 'truth'"),
        ({"categories": "true"}, "expected several names"),
        ({"follow_ups": {"a": (["yes"], [])}}, "no negative follow-ups"),
        ({"follow_ups": {"a": ([" "], ["no"])}}, "no positive follow-ups, or an empty one"),
        ({"follow_ups": {}}, "0 categories"),
        ({"mode": "logit"}, "mode 'logit'"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        FollowUpLikelihood(**{"follow_ups": SETS, **settings})


def test_a_window_too_small_for_the_follow_up_is_refused(rater):
    with pytest.raises(UserError, match="tokens, and"):
        FollowUpLikelihood(rater, follow_ups={"a": (["word " * 100], ["no"])})(ROLLOUTS)


def test_a_template_that_rewrites_the_turn_is_refused():
    loud = small_tokenizer(template="{% for m in messages %}{{ m['content'] | upper }}<|end|>{% endfor %}{{ '<|assistant|>' }}")
    codec = Codec(loud, acts=False, raw=True)
    codec.chat = True
    with pytest.raises(UserError, match="changes what the user says"):
        codec.before_turn(Prompt("a", "hi"), "yes", "user", "Right.")
