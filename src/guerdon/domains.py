"""Where the inputs of a method come from, domain by domain: a table from `build`'s parameter names to loaders.

A new domain is one more entry; nothing else in the package asks which domain it is in.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.config import LoraConfig, Run, Sampling, run_of
from guerdon.errors import UserError, nearest

DATA = ("prompts", "pairs", "demos", "pools", "unpaired", "stepwise")
MODELS = ("policy", "scorer", "prm")
ENCODER = "minilm"
"""A sentence encoder: no reward model by itself, but features for the head of one."""


@dataclass(frozen=True)
class Data:
    """Items of one kind, and what to show of them. facts: for the manifest; shown: for people; first: the first item, rendered."""

    items: Sequence[Any]
    facts: Mapping[str, Any]
    shown: str
    first: str


@dataclass(frozen=True)
class Domain:
    """loaders: import paths `module:name` of functions of (cfg, key) by input name. rows: turns items into rollouts that rewards can be
    tried on (None: nothing to try them on before the policy acts). render: shows an item as the model will see it."""

    loaders: Mapping[str, str]
    rows: str | None = None
    render: str | None = None

    def load(self, name: str, cfg: Any, key: Any) -> Any:
        if name not in self.loaders:
            raise UserError(
                f"nothing provides {name!r} for build()", hint=f"build can ask for: {', '.join([*self.loaders, 'reward', 'key'])}"
            )
        return target(self.loaders[name])(cfg, key)


def target(path: str) -> Callable[..., Any]:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


HERE = "guerdon.domains"
DOMAINS: Mapping[str, Domain] = {
    "text": Domain(
        {
            **{kind: f"{HERE}:text_{kind}" for kind in DATA},
            "policy": f"{HERE}:text_policy",
            "prm": f"{HERE}:text_prm",
            "scorer": f"{HERE}:text_scorer",
        },
        rows=f"{HERE}:text_rows",
        render=f"{HERE}:text_render",
    ),
    "control": Domain({"prompts": f"{HERE}:control_prompts", "policy": f"{HERE}:control_policy"}),
    "diffusion": Domain(
        {
            **{kind: f"{HERE}:diffusion_{kind}" for kind in ("prompts", "pairs", "demos")},
            "policy": f"{HERE}:diffusion_policy",
        }
    ),
}


def domain(name: str) -> Domain:
    if name not in DOMAINS:
        raise UserError(f"unknown domain {name!r}", hint=nearest(name, DOMAINS))
    return DOMAINS[name]


# ---------------------------------------------------------------- text


def text_data(kind: str) -> Callable[[Any, Any], Data]:
    """Reads the `data` of a config, or what its setting of the kind's own name says (`prompts`, beside demonstrations)."""

    def load(cfg: Any, key: Any) -> Data:
        from guerdon.data import load as read

        loaded = read(getattr(cfg, kind, None) or cfg.data, kind, key=key)  # type: ignore[call-overload]
        found = loaded.detected
        return Data(loaded.items, found.as_dict(), str(found), found.first)

    return load


def given_rows(rows: Sequence[Any], kind: str) -> Data:
    """Rows handed over in Python, read as a file of them would be; typed items as they are."""
    if rows and not isinstance(rows[0], Mapping):
        return plain(rows, "python")
    from guerdon.data import load as read

    loaded = read(rows, kind)  # type: ignore[call-overload]
    return Data(loaded.items, loaded.detected.as_dict(), str(loaded.detected), loaded.detected.first)


text_prompts, text_pairs, text_demos, text_pools, text_unpaired, text_stepwise = map(text_data, DATA)


def text_policy(cfg: Any, key: Any) -> Any:
    return causal(cfg, key, engine=run_of(cfg).engine, rollout_dtype=run_of(cfg).rollout_dtype)


def causal(cfg: Any, key: Any, **more: Any) -> Any:
    """A language model with the settings of the config."""
    from guerdon.policies.text import TextPolicy

    sampling = getattr(cfg, "sampling", None)
    drawn = ("temperature", "top_p", "top_k", "max_new", "stop") if isinstance(sampling, Sampling) else ()
    options = {name: getattr(sampling, name) for name in drawn}
    options |= {name: getattr(cfg, name) for name in ("max_length", "layout", "chat_template", "raw", "critic") if hasattr(cfg, name)}
    return TextPolicy.load(cfg.model, **lora(cfg, key), **place(cfg), **options, **more)


def check_engine(cfg: Any, name: str, needs: Sequence[str], given: Mapping[str, Any]) -> None:
    """Whether the rollout engine of the config is there, before anything large is loaded. Raises UserError."""
    engine = run_of(cfg).engine
    if engine == "own":
        return
    if name != "text" or "policy" not in needs:
        raise UserError(f"engine {engine!r} draws samples of a text model, and this method has none", hint="leave --engine out")
    if "policy" in given:
        raise UserError(
            f"engine {engine!r} and a policy that was made in Python",
            hint=f"give it to the policy: TextPolicy.load(..., engine={engine!r})",
        )
    from guerdon.policies.engines.base import open_engine

    open_engine(engine)


def text_prm(cfg: Any, key: Any) -> Any:
    """A second copy of the policy, to be trained as a process reward model."""
    other = getattr(cfg, "prm_model", None)
    return causal(dataclasses.replace(cfg, model=other) if other else cfg, key)


def text_scorer(cfg: Any, key: Any) -> Any:
    from guerdon.policies.heads import Scorer

    name, kind = getattr(cfg, "scorer_model", None) or cfg.model, Scorer
    if getattr(cfg, "freeze", False):
        from guerdon.policies.features import FeatureScorer, SentenceEncoder, with_prompt
        from guerdon.policies.frozen import FrozenScorer

        if name == ENCODER:
            return FeatureScorer(SentenceEncoder(name), text=with_prompt)
        kind = FrozenScorer
    elif getattr(cfg, "WRITES", False):
        from guerdon.policies.writing import WritingScorer as kind
    options = {name: getattr(cfg, name) for name in ("max_length", "chat_template", "raw") if hasattr(cfg, name)}
    return kind.load(name, key=key, **lora(cfg, key), **place(cfg), **options)


def lora(cfg: Any, key: Any) -> dict[str, Any]:
    """The `lora` option of a loader, when the config has adapters switched on."""
    group = getattr(cfg, "lora", None)
    if not isinstance(group, LoraConfig) or not group.rank:
        return {}
    from guerdon.policies.lora import Lora

    targets = "all-linear" if group.targets == "all-linear" else tuple(part.strip() for part in group.targets.split(","))
    return {"lora": Lora(group.rank, group.scale, targets, key.number % 2**31)}


def place(cfg: Any) -> dict[str, Any]:
    """Device, number formats and memory."""
    import torch

    run = getattr(cfg, "run", Run(compute="float32"))
    where = {"device": device(run.device, torch.cuda.is_available()), "dtype": run.dtype}
    return where | {name: getattr(run, name) for name in ("compute", "checkpoint_activations")}


def device(asked: str, gpu: bool) -> str:
    if asked == "cuda" and not gpu:
        raise UserError("device cuda, but torch sees no GPU", hint="--device cpu, or a torch build for your GPU")
    return ("cuda" if gpu else "cpu") if asked == "auto" else asked


def text_rows(items: Sequence[Any]) -> list[Any]:
    """Rollouts to try a reward on: the responses of the data; for prompts alone, the reference answer, or the prompt's own words."""
    from guerdon.types import Preference, Prompt, Rollout

    rows: list[Rollout] = []
    for item in items:
        if isinstance(item, Preference):
            rows += item.ranked
        elif isinstance(item, Prompt):
            known = (item.meta.get(name) for name in ("ground_truth", "answer", "reference", "solution"))
            content = next((str(value) for value in known if isinstance(value, (str, int, float))), None) or words(item.content)
            rows.append(Rollout(item, content))
        else:
            rows.append(item)
    return rows


def words(content: Any) -> str:
    return content if isinstance(content, str) else str(content[-1].get("content", "")) if content else ""


def text_render(cfg: Any, item: Any) -> str:
    """The first item as the model will read it, by its own tokenizer and chat template; no weights are loaded."""
    from transformers import AutoTokenizer

    from guerdon.policies.codec import Codec, completion_text
    from guerdon.policies.loading import load, locate
    from guerdon.types import Preference, Prompt, Rollout

    if cfg.model == ENCODER:
        from guerdon.policies.features import with_prompt

        return words(item.content) if isinstance(item, Prompt) else with_prompt(item.ranked[0] if isinstance(item, Preference) else item)
    tokenizer = load(AutoTokenizer, locate(cfg.model))
    if isinstance(item, Rollout) and isinstance(item.prompt.content, tuple) and item.actions is not None:  # token ids already
        return tokenizer.decode([*item.prompt.content, *item.actions.tolist()])
    codec = Codec(tokenizer, stop=[0] if tokenizer.eos_token_id is None else [])
    prompt = item if isinstance(item, Prompt) else item.prompt
    text = codec.render(prompt)
    rollout = item.ranked[0] if isinstance(item, Preference) else None if isinstance(item, Prompt) else item
    return text if rollout is None else text + "".join(codec.render_turn(prompt, completion_text(rollout)))


# ---------------------------------------------------------------- control, diffusion


def plain(items: Sequence[Any], source: str) -> Data:
    """Items of a domain whose data needs no detection."""
    kind = type(items[0]).__name__.lower()
    first = getattr(items[0], "prompt", items[0])
    facts = {"source": source, "items": len(items), "first": first.id}
    return Data(items, facts, f"{source}: {len(items)} {kind}s", f"{first.id}: {str(first.content)[:200]}")


def control_prompts(cfg: Any, key: Any) -> Data:
    from guerdon.policies.control import load_prompts

    return plain(load_prompts(cfg.data), cfg.data)


def control_policy(cfg: Any, key: Any) -> Any:
    from guerdon.policies.control import load_policy

    return load_policy(cfg.model, cfg.data, key, **{name: getattr(cfg, name) for name in ("hidden", "critic") if hasattr(cfg, name)})


def diffusion_prompts(cfg: Any, key: Any) -> Data:
    from guerdon.policies.diffusion import load_prompts

    return plain(load_prompts(cfg.data), cfg.data)


def diffusion_pairs(cfg: Any, key: Any) -> Data:
    from guerdon.policies.diffusion import load_pairs

    return plain(load_pairs(cfg.data, key), cfg.data)


def diffusion_demos(cfg: Any, key: Any) -> Data:
    from guerdon.policies.diffusion import load_demos

    return plain(load_demos(cfg.data), cfg.data)


def diffusion_policy(cfg: Any, key: Any) -> Any:
    from guerdon.policies.diffusion import load_policy

    return load_policy(cfg.model, cfg.data, key)


def scorer_folder(folder: Path) -> Any:
    """A trained reward model, ready to score."""
    from guerdon.policies import gated, tagger
    from guerdon.policies.features import CONFIG, FeatureScorer
    from guerdon.policies.frozen import FrozenScorer
    from guerdon.policies.heads import Scorer
    from guerdon.rewards import ensemble
    from guerdon.rewards.model import Identity
    from guerdon.rewards.segments import SegmentReward

    if (folder / tagger.CONFIG).exists():
        return SegmentReward(tagger.Tagger.load(folder), identity=Identity.of(folder))
    if (folder / ensemble.CONFIG).exists():
        return ensemble.Ensemble.load(folder, scorer_folder)
    if (folder / gated.CONFIG).exists():
        return gated.GatedScorer.load(folder, FeatureScorer.load if (folder / CONFIG).exists() else FrozenScorer.load)
    return FeatureScorer.load(folder) if (folder / CONFIG).exists() else Scorer.load(folder)
