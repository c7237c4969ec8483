"""Program that bench-text times: a plain PyTorch loop that trains the same text VAE.

For each line on standard input it does some training steps and prints the tokens per second. It
needs an interpreter with PyTorch: `python torch_text.py --batch B --length T --vocabulary V ...`.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A pre-norm block of attention and an MLP, which also attends to the vectors `given`.

    The vectors are f[B, P, W]; their keys and values are computed by a linear map.
    """

    def __init__(self, width: int, heads: int, given: bool):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.given: nn.Module = nn.Linear(width, 2 * width) if given else nn.Identity()

    def forward(self, x, mask, given=None):
        """Maps f[B, N, W] to the same shape; mask is bool, True where attention is allowed."""

        def split(values):
            return values.reshape(*values.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        if given is not None:
            keys, values = self.given(given).chunk(2, dim=-1)
            key, value = torch.cat([keys, key], 1), torch.cat([values, value], 1)
        y = F.scaled_dot_product_attention(split(query), split(key), split(value), attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class TextVAE(nn.Module):
    """The model of bench-text: encoder, Gaussian, and a decoder that reads a prefix."""

    def __init__(self, vocabulary, width, layers, heads, latents, prefix, length):
        super().__init__()
        self.prefix, self.width = prefix, width
        self.seen, self.spoken = (
            nn.Embedding(vocabulary, width),
            nn.Embedding(vocabulary + 1, width),
        )
        self.places = nn.ParameterList([nn.Parameter(torch.zeros(length, width)) for _ in range(2)])
        self.encoder = nn.ModuleList([Block(width, heads, False) for _ in range(layers)])
        self.decoder = nn.ModuleList([Block(width, heads, True) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.pool, self.statistics = nn.Linear(width, 1), nn.Linear(width, 2 * latents)
        self.lift, self.shift = nn.Linear(latents, prefix * width), nn.Linear(prefix * width, width)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        """Returns the negative ELBO of i64[B, T], averaged over the batch."""
        real = tokens > 0
        hidden = self.seen(tokens) + self.places[0]
        for block in self.encoder:
            hidden = block(hidden, real[:, None, None])
        hidden = self.norms[0](hidden)
        weight = self.pool(hidden)[..., 0].masked_fill(~real, -1e9).softmax(-1)
        mean, log_std = self.statistics((weight[..., None] * hidden).sum(1)).chunk(2, dim=-1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        given = self.lift(z).reshape(len(z), self.prefix, self.width)
        before = F.pad(tokens, (1, 0))[:, :-1]
        hidden = self.spoken(before) + self.places[1] + self.shift(given.flatten(1))[:, None]
        count = tokens.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool).tril()
        causal = F.pad(causal, (self.prefix, 0), value=True)
        for block in self.decoder:
            hidden = block(hidden, causal, given)
        logits = self.output(self.norms[1](hidden))
        cost = F.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), ignore_index=0, reduction="sum"
        )
        kl = 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
        return (cost + kl.sum()) / len(tokens)


def main() -> None:
    """Trains for some steps for each line on standard input, and prints tokens per second."""
    parser = argparse.ArgumentParser()
    sizes = ("vocabulary", "width", "layers", "heads", "latents", "prefix", "length")
    for name in (*sizes, "batch", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--texts", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = torch.from_numpy(np.load(arguments.texts, allow_pickle=False).astype(np.int64))
    model = TextVAE(*(getattr(arguments, name) for name in sizes))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    sys.stdout.write(json.dumps({"torch": torch.__version__}) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        tokens, start = 0, time.perf_counter()
        order = torch.randperm(len(rows))
        for step in range(arguments.steps):
            batch = rows[order[step * arguments.batch : (step + 1) * arguments.batch]]
            optimiser.zero_grad(set_to_none=True)
            loss = model(batch)
            loss.backward()
            optimiser.step()
            tokens += int((batch > 0).sum())
        seconds = time.perf_counter() - start
        sys.stdout.write(json.dumps({"tokens_per_second": tokens / seconds}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
