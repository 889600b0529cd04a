"""A language model that talks to a world: rollouts of several turns, in which only the model's own tokens are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from guerdon.core.rng import Key
from guerdon.envs.text import World
from guerdon.errors import UserError
from guerdon.policies.codec import Codec
from guerdon.policies.text import TextPolicy
from guerdon.types import Prompt, Rollout

ASKED, ANSWERED = "a question of mine", "an answer of mine"  # stand for a conversation, to see what a template puts between its turns


class Playing(TextPolicy):
    """A `TextPolicy` whose samples are episodes in a world: it ends its turn, the world replies, it goes on, until nothing is left to say.

    A rollout's `actions` hold all turns in order, as they were sampled and as the world's words were encoded; nothing is rendered again.
    `mask` is False on what the world wrote (and on what the template puts around it), where `logp` is 0. `segments`: "turn", the policy's
    turns, and "world", the replies between them. `content` is a list of messages when the world replied, else the text.
    world: what it talks to. max_new: tokens of one turn. end: "length" when a turn was cut, when the replies (`world.turns`) were used
    up, or when there is no room for another turn. Randomness of turn k > 0: `key.fold("turn", k)` and the place among the episodes that
    go on.
    Continuing from ids in the middle (`extend`) leaves the world out.
    """

    def __init__(self, model: Any, tokenizer: Any, *, world: World, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.world = world

    def sample(self, prompts: Sequence[Prompt], n: int, key: Key, **how: Any) -> list[Rollout]:
        """n episodes of each prompt. See `TextPolicy.sample` for the rest."""
        rollouts = super().sample(prompts, n, key, **how)
        rollouts = [r.with_(segments={**r.segments, "turn": ((0, len(r)),)}) for r in rollouts]
        said = [[{"role": "assistant", "content": r.content}] for r in rollouts]
        alive = [i for i, r in enumerate(rollouts) if not isinstance(r.prompt.content, tuple)]
        for turn in range(self.world.turns + 1):
            going: list[tuple[int, str, list[int]]] = []
            for i in (i for i in alive if rollouts[i].end == "stop"):
                reply = self.world.reply(rollouts[i].prompt, said[i])
                if reply is None:
                    continue
                ids = after_turn(self.codec, self.world.role, reply)
                used = sum(self.lengths(rollouts[i])) + len(ids)
                if turn == self.world.turns or used + 1 > self.max_length:
                    rollouts[i] = rollouts[i].with_(end="length")
                else:
                    going.append((i, reply, ids))
            if not going:
                break
            contexts = [self._context(rollouts[i], ids) for i, _, ids in going]
            drawn = super().sample(contexts, 1, key.fold("turn", turn + 1), **how)
            for (i, reply, ids), more in zip(going, drawn, strict=True):
                said[i] += [{"role": self.world.role, "content": reply}, {"role": "assistant", "content": more.content}]
                rollouts[i] = _joined(rollouts[i], ids, more)
            alive = [i for i, _, _ in going]
        return [r if len(turns) == 1 else r.with_(content=turns) for r, turns in zip(rollouts, said, strict=True)]

    def _context(self, rollout: Rollout, ids: Sequence[int]) -> Prompt:
        assert rollout.actions is not None
        return Prompt(rollout.prompt.id, (*self.codec.prompt_ids(rollout.prompt), *rollout.actions.tolist(), *ids))


def _joined(begun: Rollout, ids: Sequence[int], more: Rollout) -> Rollout:
    """The episode with the world's tokens and the policy's next turn."""
    assert begun.actions is not None and begun.logp is not None and begun.mask is not None
    assert more.actions is not None and more.logp is not None and more.mask is not None
    reply = torch.tensor(ids, dtype=begun.actions.dtype)
    start = len(begun) + len(reply)
    spans = {**begun.segments, "turn": (*begun.segments["turn"], (start, start + len(more)))}
    spans["world"] = (*begun.segments.get("world", ()), (len(begun), start))
    return begun.with_(
        actions=torch.cat([begun.actions, reply, more.actions]),
        logp=torch.cat([begun.logp, begun.logp.new_zeros(len(reply)), more.logp]),
        mask=torch.cat([begun.mask, torch.zeros(len(reply), dtype=torch.bool), more.mask]),
        segments=spans,
        end=more.end,
    )


def after_turn(codec: Codec, role: str, said: str) -> list[int]:
    """Ids between a turn of the policy, its stop token included, and its next one, when `role` says this in between.

    With a chat template they are what it renders there, the next turn's opening included; without one the text alone. Raises UserError
    for a template that does not know the role, or changes the text.
    """
    encoded = lambda text: codec.memo.ids(("part", text), lambda: codec.tokenizer(text, add_special_tokens=False).input_ids)
    if not codec.chat:
        return encoded(said)
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}, {"role": role, "content": said}]
    whole = codec._template(turns, "a reply of the world", add_generation_prompt=True)
    between = whole[whole.rindex(ANSWERED) + len(ANSWERED) :] if ANSWERED in whole else ""
    if said not in between:
        raise UserError(f"the chat template changes what the world says ({said[:60]!r})", hint="leave out white space around the text")
    ids = encoded(between)
    stop = next((i for i, token in enumerate(ids) if token in codec.stop_ids), -1)  # the policy has sampled its own
    return ids[stop + 1 :]
