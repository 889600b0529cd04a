"""TRL's side: its real trainers, with its defaults but for gradient checkpointing, which is off so that TRL is at its fastest.

`trainer.train()` makes the first step and sets everything up as it does for anybody; the steps after it are the same calls that its
loop makes: batch, `training_step`, clipping, optimizer, schedule. Logging, callbacks and checkpoints are left out, to TRL's advantage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import model_folder
from benchmarks.settings import LR, Settings
from benchmarks.workloads import Done, Step, Workload, advantages, rows


def build(workload: Workload, settings: Settings, *, precomputed: bool = False) -> Step:
    """A function that does one step of the workload; the first call is TRL's own training loop.

    precomputed: the reference's log-probabilities are computed before training (DPO and KTO).
    """
    import datasets

    datasets.disable_progress_bars()
    folder = model_folder(settings.folder / "models", workload.shape, stop_every=workload.stop, scorer=workload.kind == "reward")
    return BUILDERS[workload.kind](workload, folder, settings, precomputed)


def build_dpo(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    config = DPOConfig(**arguments(workload, settings), max_length=None, precompute_ref_log_probs=precomputed)
    return Loop(DPOTrainer(str(folder), args=config, train_dataset=pairs(workload)))


def build_reward(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    config = RewardConfig(**arguments(workload, settings), max_length=None)
    return Loop(RewardTrainer(str(folder), args=config, train_dataset=pairs(workload)))


def build_kto(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    data = dataset({**row, "label": i % 2 == 0} for i, row in enumerate(single(workload)))
    config = KTOConfig(**arguments(workload, settings), max_length=None, precompute_ref_log_probs=precomputed)
    return Loop(KTOTrainer(str(folder), args=config, train_dataset=data))


def build_sft(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    config = SFTConfig(**arguments(workload, settings), max_length=None, completion_only_loss=True)
    return Loop(SFTTrainer(str(folder), args=config, train_dataset=dataset(single(workload))))


def build_grpo(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    return Loop(grpo_trainer(workload, folder, settings), lengths=True)


def build_update(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    """GRPO's update: the trainer's own step, whose rollouts are there already."""
    trainer = grpo_trainer(workload, folder, settings)
    prompts, completions = tokens(workload, trainer.processing_class)
    trainer._generate_and_score_completions = lambda inputs: rollouts(trainer, prompts, completions, workload)
    return Loop(trainer)


def build_sampling(workload: Workload, folder: Path, settings: Settings, precomputed: bool) -> Step:
    """`generate` as GRPOTrainer calls it, on the model as its training loop has prepared it (float32 weights, autocast)."""
    trainer = grpo_trainer(workload, folder, settings)
    prompts, _ = tokens(workload, trainer.processing_class)
    short = [[2]] * workload.rows
    trainer._generate_and_score_completions = lambda inputs: rollouts(trainer, short, short, workload)
    trainer.train()

    def step() -> Done:
        drawn, _ = trainer._generate_single_turn(prompts, None, {}, trainer.num_generations)
        return Done({}, tuple(map(len, drawn)), tuple(zip(prompts, drawn, strict=True))[:: max(1, workload.rows // 8)])

    return step


# ---------------------------------------------------------------- the training loop


class Loop:
    """One optimizer step a call, as `Trainer.train` makes it; the first is that function itself."""

    def __init__(self, trainer: Any, *, lengths: bool = False) -> None:
        from transformers.trainer_callback import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        self.trainer, self.lengths, self.batches = trainer, lengths, iter(())

    def __call__(self) -> Done:
        metrics = self._step() if self.trainer.state.global_step else self._first()
        drawn = self.trainer._metrics["train"].get("completions/mean_length") or [metrics.get("completions/mean_length", 0.0)]
        mean, rows = round(drawn[-1]), self.trainer.args.per_device_train_batch_size
        return Done(metrics, (mean,) * rows if self.lengths else ())

    def _first(self) -> dict[str, float]:
        self.trainer.train()
        return {k: float(v) for k, v in self.trainer.state.log_history[0].items() if isinstance(v, (int, float))}

    def _step(self) -> dict[str, float]:
        trainer = self.trainer
        batch, items = trainer.get_batch_samples(self._batches(), 1, trainer.args.device)
        loss = trainer.training_step(trainer.model_wrapped, batch[0], items)
        norm = trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.model_wrapped.zero_grad()
        return {"loss": float(loss), "grad_norm": float(norm)}

    def _batches(self) -> Iterator[Any]:
        """Where the next batch comes from; a data set of one batch ends after each."""
        self.batches = iter(self.trainer.get_train_dataloader())
        return self.batches


def arguments(workload: Workload, settings: Settings) -> dict[str, Any]:
    """What all configurations share."""
    paired = workload.kind in ("dpo", "reward")
    return {
        "output_dir": str(settings.folder / "trl"),
        "per_device_train_batch_size": len(workload.prompts) if paired else workload.rows,
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "bf16": settings.trl_dtype == "bfloat16",
        "gradient_checkpointing": False,
        "torch_compile": settings.compiled,
        "use_cpu": settings.device == "cpu",
        "dataloader_pin_memory": settings.device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",
        "model_init_kwargs": {"attn_implementation": settings.trl_attention} if settings.trl_attention else None,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def grpo_trainer(workload: Workload, folder: Path, settings: Settings) -> Any:
    """G completions a prompt, no leash to a reference (TRL's default), one update for each generation."""
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    config = GRPOConfig(
        **arguments(workload, settings),
        num_generations=len(workload.completions[0]),
        max_completion_length=max(map(max, workload.completions)),
        steps_per_generation=1,
        loss_type="grpo",
        beta=0.0,
    )
    data = dataset({"prompt": row.prompt} for row in rows(workload))
    trainer = GRPOTrainer(str(folder), reward_funcs=distinct, args=config, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    return trainer


def distinct(completions: Any, **columns: Any) -> Any:
    """How many letters occur; the same reward on both sides."""
    return [float(len(set(text))) for text in completions]


def rollouts(trainer: Any, prompts: list[list[int]], completions: list[list[int]], workload: Workload) -> dict[str, Any]:
    """What `_generate_and_score_completions` gives, for these token ids: prompts padded to the left, completions to the right."""
    device, pad = trainer.accelerator.device, trainer.processing_class.pad_token_id
    prompt_ids, prompt_mask = padded(prompts, pad, left=True)
    ids, mask = padded(completions, pad, left=False)
    adv = [a for c in workload.completions for a in advantages(len(c))]
    found = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(adv, dtype=torch.float32),
        "num_items_in_batch": mask.sum(),
    }
    return {name: x.to(device) for name, x in found.items()}


def padded(rows: list[list[int]], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, `(N, longest)`."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask


# ---------------------------------------------------------------- data


def dataset(found: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(found))


def pairs(workload: Workload) -> Any:
    return dataset({"prompt": row.prompt, "chosen": row.completions[0], "rejected": row.completions[1]} for row in rows(workload))


def single(workload: Workload) -> list[dict[str, Any]]:
    return [{"prompt": row.prompt, "completion": text} for row in rows(workload) for text in row.completions]


def tokens(workload: Workload, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of every completion's prompt, and of the completions with their stop tokens."""
    read = [(tokenizer(row.prompt).input_ids, tokenizer(text).input_ids) for row in rows(workload) for text in row.completions]
    return [prompt for prompt, _ in read], [[*text, tokenizer.eos_token_id] for _, text in read]


BUILDERS: Mapping[str, Callable[[Workload, Path, Settings, bool], Step]] = {
    "dpo": build_dpo,
    "reward": build_reward,
    "kto": build_kto,
    "sft": build_sft,
    "learn": build_update,
    "sample": build_sampling,
    "grpo": build_grpo,
}
