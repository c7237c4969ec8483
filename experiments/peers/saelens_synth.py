"""Trains SAELens' SAEs on the tokens of a run, one SAE for each code and seed.

It is started as `saelens_synth.py FOLDER` by an interpreter with sae-lens and PyTorch. FOLDER holds
tokens.npy f32[N, d], rows.npy i64[T, B] (the tokens of each step) and task.json. Each SAE is
written to FOLDER/CODE-SEED as SAELens saves it for inference. The weight of the sparsity penalty is
controlled by the same law as in aejax (aejax/bottlenecks/sparse/memory.py), so that both libraries
are compared at equal L0.
"""

import importlib.metadata
import json
import math
import pathlib
import sys

import numpy as np
import torch
from sae_lens import saes
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


class Price:
    """A controller of the weight of the sparsity penalty, which brings L0 to `target`."""

    def __init__(self, target: float, energy: float, descent: int):
        self.target, self.most, self.descent = target, math.log(2.0 * energy / target), descent
        self.least = self.most - math.log(2000.0)
        self.start = self.excess = self.slow = self.integral = 0.0

    def after(self, step: int, l0: float) -> float:
        """Returns the weight for the next step, from the L0 of this step."""
        above = math.log(max(l0, 0.01) / self.target)
        if step == 0:
            self.start = max(above, 0.0)
        left = max(1.0 - step / self.descent, 0.0)
        if self.integral <= self.least:
            self.start = max(min(self.start, above / max(left, 1e-3)), 0.0)
        now = min(max(above - left * self.start, -2.0), 2.0)
        self.excess = 0.9 * self.excess + 0.1 * now
        self.slow = 0.995 * self.slow + 0.005 * now
        push = self.excess + 5.0 * (self.excess - self.slow)
        self.integral = min(max(self.integral + 0.01 * push, self.least), self.most)
        return math.exp(self.integral + min(max(self.excess, -1.0), 1.0))


def made(code: str, size: int, task: dict):
    """Returns an untrained SAE of SAELens, with its defaults except for what task.json sets."""
    shape = {
        "d_in": size,
        "d_sae": task["latents"],
        "normalize_activations": "expected_average_only_in",
    }
    if code == "topk":
        return saes.TopKTrainingSAE(saes.TopKTrainingSAEConfig(**shape, k=int(task["l0"])))
    if code == "batchtopk":
        config = saes.BatchTopKTrainingSAEConfig(**shape, k=task["l0"])
        return saes.BatchTopKTrainingSAE(config)
    if code == "matryoshka":
        config = saes.MatryoshkaBatchTopKTrainingSAEConfig(
            **shape, k=task["l0"], matryoshka_widths=task["prefixes"]
        )
        return saes.MatryoshkaBatchTopKTrainingSAE(config)
    if code == "jumprelu":
        return saes.JumpReLUTrainingSAE(saes.JumpReLUTrainingSAEConfig(**shape))
    if code == "gated":
        return saes.GatedTrainingSAE(saes.GatedTrainingSAEConfig(**shape))
    return saes.StandardTrainingSAE(saes.StandardTrainingSAEConfig(**shape))


def trained(code: str, seed: int, tokens: torch.Tensor, rows: torch.Tensor, task: dict):
    """Trains one SAE and returns it with its input scale folded into its weights."""
    torch.manual_seed(seed)
    sae = made(code, tokens.shape[1], task)
    steps, batch = rows.shape
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=task["learning_rate"],
        lr_end=0.0,
        lr_decay_steps=task["decay_steps"],
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, iter(()))
    scale = tokens.shape[1] ** 0.5 / float(tokens[:100_000].norm(dim=-1).mean())
    trainer.activation_scaler.scaling_factor = scale
    priced = (
        trainer.coefficient_schedulers
    )  # the weight of the L1 or L0 penalty; empty if the code fixes its L0
    energy = float(tokens[:100_000].square().sum(-1).mean()) * scale**2
    price = Price(task["l0"], energy, task["descent"])
    for step in range(steps):
        found = trainer.step(tokens[rows[step]])
        trainer.n_training_steps += 1
        if priced:
            l0 = float((found.feature_acts != 0).sum(-1).float().mean())
            now = price.after(step, l0)
            for scheduler in priced.values():
                scheduler.final_value = scheduler.current_value = now
    sae.fold_activation_norm_scaling_factor(scale)
    return sae


def main() -> None:
    """Trains all SAEs of the task that have no folder yet."""
    folder = pathlib.Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    tokens = torch.from_numpy(np.load(folder / "tokens.npy", allow_pickle=False))
    rows = torch.from_numpy(np.load(folder / "rows.npy", allow_pickle=False))
    for seed in task["seeds"]:
        for code in task["codes"]:
            out = folder / f"{code}-{seed}"
            if not (out / "cfg.json").exists():
                trained(code, seed, tokens, rows, task).save_inference_model(out)
                print(f"saelens: {code}, seed {seed}", flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("sae-lens", "torch")}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
