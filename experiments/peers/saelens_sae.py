"""Trains an SAE by SAELens' own `SAETrainer.step`, whose speed the command `bench-sae` measures.

It needs an interpreter with sae-lens and PyTorch.
"""

import importlib.metadata

import sae_task
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


def main() -> None:
    """Answers requests for training steps until standard input ends."""
    task = sae_task.arguments()
    shape = {"d_in": task.size, "d_sae": task.latents, "apply_b_dec_to_input": False}
    if task.code == "topk":
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(**shape, k=task.k, rescale_acts_by_decoder_norm=False)
        )
    elif task.code == "batchtopk":
        sae = BatchTopKTrainingSAE(
            BatchTopKTrainingSAEConfig(**shape, k=task.k, rescale_acts_by_decoder_norm=False)
        )
    else:
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape))
    data = torch.from_numpy(sae_task.activations(task.size, task.batch))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=task.batch,
        lr_end=3e-5,  # SAELens requires it, but a constant learning rate does not use it
        device="cpu",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, iter(()))

    def run(steps: int, dead: int) -> dict[str, float]:
        with torch.no_grad():
            sae.b_enc[sae.b_enc < sae_task.BIAS / 2] = 0.0
            sae.b_enc[:dead] = sae_task.BIAS
            trainer.n_forward_passes_since_fired.zero_()
            trainer.n_forward_passes_since_fired[:dead] = sae_task.SILENT
        found = trainer.step(data[0])

        def go() -> None:
            nonlocal found
            for i in range(steps):
                found = trainer.step(data[i % len(data)])
                trainer.n_training_steps += 1

        seconds = sae_task.timed(go)
        active = (found.feature_acts != 0).sum(-1).float().mean()
        return {
            "seconds": seconds,
            "dead": int(trainer.dead_neurons.sum()),
            "l0": float(active),
            "loss": float(found.loss),
        }

    sae_task.answer({name: importlib.metadata.version(name) for name in ("sae-lens", "torch")}, run)


if __name__ == "__main__":
    main()
