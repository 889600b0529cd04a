"""Reference log-probabilities computed once: the same bits whenever a run stops, whatever is on disk, and the reference let go."""

import gc
import logging
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.config import LoraConfig, Optim
from guerdon.core.reduce import token_mean
from guerdon.core.rng import Key
from guerdon.data.cursor import Cursor
from guerdon.errors import RunStopped
from guerdon.learn.learner import Adam, Learner
from guerdon.learn.offline import offline
from guerdon.learn.run import run
from guerdon.papers import dpo
from guerdon.policies.lora import Lora
from guerdon.policies.ref_cache import LARGE, Disk, Once, disk_for, names_of
from guerdon.policies.refs import Ema, Frozen
from guerdon.policies.text import TextPolicy
from guerdon.testing import ToyPolicy, check_recipe, toy_demos
from guerdon.testing.models import small_model
from guerdon.testing.say import same
from guerdon.types import Outputs, Preference, Prompt, Rollout, Term, decisions

TEXTS = [" was great", " comes too late, but worth it.", " no", " is long", " was fine", " was bad", " was great and long"]


class Company(ToyPolicy):
    """A policy whose rounding depends on the company of a row, and shows: each batch shifts its rows by an amount of its own."""

    facts = {"dtype": "float32"}

    def __init__(self):
        super().__init__(spread=0.3)
        self.asked = []

    def forward(self, batch, need=frozenset({"logp"})):
        out = super().forward(batch, need)
        shift = 1e-3 * (1 + sum(names_of(batch)[0]) % 97 + len(batch))
        self.asked.append(len(batch))
        return Outputs(torch.where(batch.mask, out.logp + shift, 0.0))


def plain(batch):
    """What `Company` gives, without its company."""
    return ToyPolicy(spread=0.3).forward(batch).logp.detach()


def once(n=7, batch=3, epochs=3, *, seed=0, items=None, policy=None, **options):
    items = toy_demos(n) if items is None else items
    policy = policy or Company()
    cursor = Cursor(items, batch, Key(seed))
    batch_at = lambda t: policy.collate(cursor.at(t))
    steps = options.pop("steps", -(-n * epochs // batch))
    return Once(Frozen(policy), batch_at=batch_at, first_at=cursor.first_at, steps=steps, first_steps=cursor.steps_per_epoch, **options)


def values(cached, start=0):
    return [cached.logp(t, cached.batch_at(t)) for t in range(start, cached.steps)]


def equal(ours, theirs):
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 40))
def test_first_at_names_the_steps_in_which_the_items_first_came(n, batch, step):
    cursor = Cursor(range(n), batch, Key(3))
    seen = {}
    for t in range(cursor.steps_per_epoch):
        for i in cursor.index_at(t):
            seen.setdefault(i, t)
    assert cursor.first_at(step) == sorted({seen[i] for i in cursor.index_at(step)})
    if step < cursor.steps_per_epoch:
        assert step in cursor.first_at(step)


def test_each_row_is_computed_once_and_the_first_epoch_is_that_of_a_plain_reference():
    cached = once(n=7, batch=3, epochs=4)
    frozen = cached.ref
    found = values(cached)
    assert sum(frozen.policy.asked) == 9  # three batches of the first epoch, which reaches two items into the second
    equal(found[:2], [frozen.logp(cached.batch_at(t)) for t in range(2)])
    for t, x in enumerate(found):
        batch = cached.batch_at(t)
        assert float((x - plain(batch)).abs().max()) < 0.2 and not x[~batch.mask].any()


@given(st.integers(1, 8), st.integers(1, 4), st.booleans(), st.booleans())
@settings(max_examples=10)
def test_resumed_at_any_step_and_computed_upfront_it_is_the_same_to_the_last_bit(n, batch, twins, upfront):
    items = toy_demos(n)
    items = items + items[: n // 2] if twins else items  # the same text twice, under two places
    make = lambda **options: once(len(items), batch, items=items, **options)
    whole = values(make())
    for start in range(make().steps):
        equal(values(make(upfront=upfront), start), whole[start:])


def test_the_reference_is_let_go_when_all_rows_are_known():
    cached = once(n=7, batch=3, epochs=3)
    twin = weakref.ref(cached.ref.policy)
    cached.logp(0, cached.batch_at(0))
    cached.logp(1, cached.batch_at(1))
    assert twin() is not None
    cached.logp(2, cached.batch_at(2))
    gc.collect()
    assert cached.ref is None and twin() is None
    early = once(upfront=True)
    early.logp(0, early.batch_at(0))
    assert early.ref is None


def test_rows_that_are_new_at_every_step_are_computed_as_they_come():
    policy = Company()
    items = toy_demos(6)
    cursor = Cursor(items, 2, Key(0))

    def with_partner(t):  # each row's partner is the other of its batch, so the pairs differ by epoch
        a, b = cursor.at(t)
        mixed = Rollout(a.prompt, (str(a.content)[:2] + str(b.content))[:5])
        return policy.collate([a, b, mixed])

    cached = Once(Frozen(policy), batch_at=with_partner, first_at=cursor.first_at, steps=9, first_steps=3)
    frozen = cached.ref
    for t in range(9):
        batch = with_partner(t)
        x = cached.logp(t, batch)
        assert cached.ref is frozen
        assert float((x - plain(batch)).abs().max()) < 0.2 and bool((x != 0)[batch.mask].all())
    assert frozen.policy.asked[:3] == [3, 3, 3] and set(frozen.policy.asked[3:]) == {1}


def test_a_row_that_comes_too_late_stops_the_run():
    cached = once(upfront=True, epochs=1)
    cached.logp(0, cached.batch_at(0))
    with pytest.raises(RunStopped, match="let go"):
        cached.logp(1, Company().collate([Rollout(Prompt("new", "Z"), "dddd")]))


def test_names_do_not_depend_on_padding_but_on_everything_else():
    policy = ToyPolicy()
    short, long = Rollout(Prompt("p", "A"), "ab"), Rollout(Prompt("p", "A"), "abcda")
    together = policy.collate([short, long, Rollout(Prompt("p", "B"), "ab"), Rollout(Prompt("p", "A"), "ab", end="length")])
    names = names_of(together)
    assert names[0] == names_of(policy.collate([short]))[0]
    assert len(set(names)) == 4


# ---------------------------------------------------------------- on disk


def on_disk(folder, policy=None, **options):
    policy = policy or Company()
    cached = once(policy=policy, **options)
    cached.disk = Disk(folder, cached.ref)
    return cached


def test_the_next_run_reads_what_this_one_computed(tmp_path):
    first = on_disk(tmp_path)
    whole = values(first)
    second = on_disk(tmp_path)
    frozen = second.ref
    equal(values(second), whole)
    assert frozen.policy.asked == [3]  # one batch, to see that the cache is right
    equal(values(once()), whole)
    third = on_disk(tmp_path, seed=1)  # other company, other bits: nothing is shared
    frozen = third.ref
    values(third)
    assert sum(frozen.policy.asked) == 9


@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "other"])
def test_a_damaged_file_is_computed_again_with_a_warning(how, tmp_path, caplog):
    whole = values(on_disk(tmp_path))
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3
    for path in files:
        data = bytearray(path.read_bytes())
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        path.write_bytes({"cut": data[: len(data) // 2], "flipped": flipped, "emptied": b"", "other": b"not safetensors at all"}[how])
    with caplog.at_level(logging.WARNING, "guerdon"):
        equal(values(on_disk(tmp_path)), whole)
    assert sum("computed again" in r.message for r in caplog.records) == 3
    caplog.clear()
    equal(values(on_disk(tmp_path)), whole)  # they were written anew
    assert not caplog.records


def test_a_stale_cache_is_not_used(tmp_path, caplog):
    whole = values(on_disk(tmp_path))

    class Other(Company):  # the same weights and settings, and still other numbers: a library was changed
        def forward(self, batch, need=frozenset({"logp"})):
            return Outputs(super().forward(batch, need).logp * 1.5)

    with caplog.at_level(logging.WARNING, "guerdon"):
        found = values(on_disk(tmp_path, Other()))
    assert [r.message for r in caplog.records if "not what is computed now" in r.message] and len(caplog.records) == 1
    equal(found, values(once(policy=Other())))
    equal(values(on_disk(tmp_path)), whole)


def test_other_weights_and_settings_have_other_folders(tmp_path):
    one, two, three = Company(), Company(), Company()
    with torch.no_grad():
        two.logits[0, 0, 0] += 1e-4
    three.facts = {"dtype": "bfloat16"}
    assert len({Disk(tmp_path, Frozen(p)).folder for p in (one, two, three, Company())}) == 3


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cached = on_disk(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "guerdon"):
        equal(values(cached), values(once()))
    assert len(caplog.records) == 1 and "can't be written" in caplog.records[0].message


def test_the_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    ref = Frozen(Company())
    assert disk_for(ref, "off") is disk_for(ref, "auto") is None  # small
    assert disk_for(ref, "on").folder.parent == tmp_path / "ref-logp"
    assert disk_for(ref, str(tmp_path / "own")).folder.parent == tmp_path / "own" / "ref-logp"
    assert disk_for(Frozen(ToyPolicy()), "on") is None  # does not tell its settings
    monkeypatch.setattr(Frozen, "size", LARGE)
    assert disk_for(ref, "auto") is not None


# ---------------------------------------------------------------- in recipes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


def recipe(model, lora=0, where="off", steps=6):
    policy = TextPolicy.load(model, lora=Lora(lora) if lora else None)
    prompts = [Prompt(word, f"The {word}") for word in ("food", "film", "end", "plot", "cast")]
    rows = [Preference(p, (Rollout(p, TEXTS[i]), Rollout(p, TEXTS[i + 1]))) for i, p in enumerate(prompts)]
    cfg = dpo.Config(batch=2, steps=steps, optim=Optim(lr=1e-2), lora=LoraConfig(rank=lora))
    if where != "off":
        from guerdon import settings
        from guerdon.config import Run

        cfg = settings.with_run(dpo.Config)(**vars(cfg), run=Run(ref_cache=where))
    return dpo.build(cfg, policy, rows, Key(0))


@pytest.mark.parametrize("lora", [0, 2])
def test_dpo_with_and_without_a_cache_and_killed_ends_with_the_same_bytes(lora, model, tmp_path):
    plain, cold, warm = (recipe(model, lora, where) for where in ("off", str(tmp_path / "cache"), str(tmp_path / "cache")))
    for name, made in (("plain", plain), ("cold", cold), ("warm", warm)):
        made = type(made)(made.state, made.step, made.steps)
        run(made, tmp_path / name, save_every=6)
    assert same(plain.state["learner"].state_dict(), cold.state["learner"].state_dict())
    assert same(plain.state["learner"].state_dict(), warm.state["learner"].state_dict())
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
    if not lora:
        check_recipe(lambda: recipe(model), steps=6)  # two and a half epochs


def kept(made):
    """What an offline recipe remembers of its reference."""
    return next((x for part in made.step.args for x in getattr(part, "args", ()) if isinstance(x, Once)), None)


def test_nothing_in_a_recipe_holds_on_to_the_reference(model):
    made = recipe(model, steps=4)
    once = kept(made)
    twin = weakref.ref(once.ref.policy.model)
    for t in range(3):  # all five pairs have come
        assert twin() is not None
        made.step(t)
    gc.collect()
    assert twin() is None
    made.step(3)


def test_rows_of_a_moving_reference_are_not_kept():
    policy = ToyPolicy(spread=0.1)
    term = Term("nll", lambda o, b: b.ref_logp - o.logp, over=decisions, reduce=token_mean)
    common = dict(learner=Learner(policy, [term], Adam(0.5)), items=toy_demos(4), collate=policy.collate, batch=4, steps=3, key=Key(0))
    fixed, moving = offline(**common, ref=Frozen(policy)), offline(**common, ref=Ema(policy, 0.5))
    assert kept(fixed) is not None
    assert kept(moving) is None
