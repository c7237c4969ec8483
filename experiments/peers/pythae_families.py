"""Trains pythae's models on the batches of a run of the experiment families.

It is started as `pythae_families.py FOLDER` by an interpreter with pythae and PyTorch. FOLDER holds
train.npy f32[N, D] and test.npy f32[M, D], rows.npy i64[S, T, B] (the examples of each step, for
each seed) and task.json. The models' losses are pythae's own; Adam's steps are taken here, so that
the batches are those of the run. The weights go to FOLDER/NAME-SEED.npz, with reconstructions of
the test examples; models whose file is there are not trained again.
"""

import importlib.metadata
import json
import pathlib
import sys

import numpy as np
import torch
from pythae import models


def made(name: str, task: dict) -> torch.nn.Module:
    """Returns an untrained model of pythae, with its default nets."""
    shape = {
        "input_dim": (1, task["side"], task["side"]),
        "latent_dim": task["latents"],
        "reconstruction_loss": "bce",
    }
    own = {
        "IWAE": {"number_samples": task["draws"]},
        "VAMP": {"number_components": task["pseudo_inputs"]},
        "INFOVAE_MMD": {"alpha": 0.0, "lbd": 10.0, "kernel_choice": "imq"},
        "VQVAE": {"num_embeddings": task["codes"], "use_ema": True, "reconstruction_loss": "mse"},
    }
    other = {"INFOVAE_MMD": "INFOVAE_MMD_Config"}  # whose names do not follow from the model's
    config = getattr(models, other.get(name, f"{name}Config"))
    return getattr(models, name)(config(**{**shape, **own.get(name, {})}))


def trained(name: str, seed: int, rows: np.ndarray, data: torch.Tensor, task: dict):
    """Trains one model."""
    torch.manual_seed(seed)
    model = made(name, task)
    optimiser = torch.optim.Adam(model.parameters(), lr=task["learning_rate"])
    model.train()
    for batch in rows:
        optimiser.zero_grad()
        model({"data": data[batch]}, epoch=1).loss.backward()
        optimiser.step()
    return model.eval()


def reconstructed(name: str, model: torch.nn.Module, data: torch.Tensor) -> np.ndarray:
    """Returns the reconstructions of the codes' means, f32[N, D]."""
    with torch.no_grad():
        if name == "VQVAE":
            found = model({"data": data}).recon_x
        else:
            found = model.decoder(model.encoder(data).embedding).reconstruction
    return found.reshape(len(data), -1).numpy()


def main() -> None:
    """Trains every model with every seed."""
    folder = pathlib.Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    shape = (-1, 1, task["side"], task["side"])
    train, test = (
        torch.from_numpy(np.load(folder / f"{part}.npy")).reshape(shape)
        for part in ("train", "test")
    )
    rows = np.load(folder / "rows.npy")
    torch.set_num_threads(1)  # with two, a step of these small nets takes as long and more CPU time
    for name in task["models"]:
        for i, seed in enumerate(task["seeds"]):
            path = folder / f"{name}-{seed}.npz"
            if path.exists():
                continue
            model = trained(name, seed, rows[i], train, task)
            arrays = {key: value.numpy() for key, value in model.state_dict().items()}
            arrays["reconstructed"] = reconstructed(name, model, test)
            unfinished = folder / "unfinished.npz"
            np.savez(unfinished, **arrays)
            unfinished.replace(path)
            print(f"{name}, seed {seed}", flush=True)
    versions = {"pythae": importlib.metadata.version("pythae"), "torch": torch.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
