"""Trains a hand-written TopK autoencoder in PyTorch, whose speed `bench-sae` measures.

`embedding_bag` decodes, and AuxK is computed only while latents are dead. It needs an interpreter
with PyTorch.
"""

import importlib.metadata

import sae_task
import torch
from torch.nn import functional


class TopK(torch.nn.Module):
    """A TopK autoencoder: encoder, decoder, and the steps since each latent was last active."""

    def __init__(self, size: int, latents: int, k: int):
        super().__init__()
        rows = torch.randn(latents, size)
        rows = 0.1 * rows / rows.norm(dim=-1, keepdim=True)
        self.k, self.k_aux = k, size // 2
        self.w_dec = torch.nn.Parameter(rows)
        self.w_enc = torch.nn.Parameter(rows.T.clone().contiguous())
        self.b_enc = torch.nn.Parameter(torch.zeros(latents))
        self.b_dec = torch.nn.Parameter(torch.zeros(size))
        self.ages = torch.zeros(latents, dtype=torch.int64)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the squared error and AuxK of a batch, and updates the ages of latents."""
        pre = torch.addmm(self.b_enc, x, self.w_enc)
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        values = values.relu()
        error = self.decode(values, indices) + self.b_dec - x
        loss = error.square().sum(-1).mean()
        dead = self.ages > 1000
        count = int(dead.sum())
        if count:
            slots = min(self.k_aux, count)
            masked = torch.where(dead, pre, -torch.inf)
            values_aux, indices_aux = masked.topk(slots, dim=-1, sorted=False)
            explained = self.decode(values_aux, indices_aux)
            auxiliary = (explained + error.detach()).square().sum(-1).mean()
            loss = loss + min(count / self.k_aux, 1.0) * auxiliary
        self.ages += 1
        self.ages[indices[values.detach() > 0]] = 0
        return loss

    def decode(self, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Returns the weighted sum of k decoder rows for each example."""
        return functional.embedding_bag(indices, self.w_dec, per_sample_weights=values, mode="sum")


def main() -> None:
    """Answers requests for training steps until standard input ends."""
    task = sae_task.arguments()
    if task.code != "topk":
        raise SystemExit(
            f"this program trains topk only, since embedding_bag needs a fixed L0, not {task.code}"
        )
    torch.manual_seed(0)
    model = TopK(task.size, task.latents, task.k)
    optimiser = torch.optim.Adam(model.parameters(), 3e-4, fused=True)
    data = torch.from_numpy(sae_task.activations(task.size, task.batch))

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = model.loss(x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss

    def run(steps: int, dead: int) -> dict[str, float]:
        with torch.no_grad():
            model.b_enc[model.b_enc < sae_task.BIAS / 2] = 0.0
            model.b_enc[:dead] = sae_task.BIAS
        model.ages.zero_()
        model.ages[:dead] = sae_task.SILENT
        loss = step(data[0])

        def go() -> None:
            nonlocal loss
            for i in range(steps):
                loss = step(data[i % len(data)])

        seconds = sae_task.timed(go)
        return {
            "seconds": seconds,
            "dead": int((model.ages > 1000).sum()),
            "l0": float(model.k),
            "loss": float(loss),
        }

    sae_task.answer({"torch": importlib.metadata.version("torch")}, run)


if __name__ == "__main__":
    main()
