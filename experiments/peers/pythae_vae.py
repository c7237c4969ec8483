"""Trains a VAE 784-512-16 by pythae's own trainer, whose speed the command `bench-vae` measures.

For each line on standard input it trains an epoch and prints the images per second. It needs an
interpreter with pythae and PyTorch: `python pythae_vae.py --examples N --batch B`.
"""

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig


def main() -> None:
    """Trains one epoch for each line on standard input, and prints its images per second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    arguments = parser.parse_args()
    images = np.random.default_rng(0).random((arguments.examples, 1, 28, 28)) < 0.13
    data = torch.from_numpy(images.astype(np.float32))
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=arguments.batch,
            learning_rate=1e-3,
            no_cuda=not torch.cuda.is_available(),
        )
        trainer = BaseTrainer(
            model, BaseDataset(data, torch.ones(len(data))), training_config=config
        )
        trainer.prepare_training()
        version = importlib.metadata.version("pythae")
        sys.stdout.write(json.dumps({"pythae": version, "torch": torch.__version__}) + "\n")
        sys.stdout.flush()
        for epoch, _ in enumerate(sys.stdin, start=1):
            start = time.perf_counter()
            trainer.train_step(epoch)
            rate = len(data) / (time.perf_counter() - start)
            sys.stdout.write(json.dumps({"images_per_second": rate}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
