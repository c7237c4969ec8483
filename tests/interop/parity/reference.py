"""Runs SAELens' training classes from given weights, and writes the frozen arrays.

    python -m tests.interop.parity.reference     # writes frozen.npz; needs the extra `parity`

Data and weights are drawn once and kept in the file, with the output, loss and gradients of one
forward pass for each case, and the losses of 100 steps of Adam on batches of the same data.
"""

import pathlib

import numpy as np

SIZE, LATENTS, BATCH, EXAMPLES, STEPS = 12, 48, 32, 256, 100
LEARNING_RATE = 1e-3
WINDOW = 20  # a latent is dead after so many steps without activation
DEAD = np.arange(0, LATENTS, 12)  # latents that are dead when a run begins
FROZEN = pathlib.Path(__file__).parent / "frozen.npz"

# name: training class, its configuration, the weights of its penalties
CASES = {
    "standard": ("Standard", {}, {"l1": 0.3}),
    "topk": ("TopK", {"k": 5}, {}),
    "topk_plain": ("TopK", {"k": 5, "rescale_acts_by_decoder_norm": False}, {}),
    # With k = 5 two magnitudes at step 87 differ by less than float32 resolves, and their signs
    # differ.
    "abstopk": ("AbsTopK", {"k": 6, "aux_loss_coefficient": 0.0}, {}),
    "batchtopk": ("BatchTopK", {"k": 4.5}, {}),
    "gated": ("Gated", {}, {"l1": 0.2}),
    "jumprelu": ("JumpReLU", {}, {"l0": 0.3}),
    "jumprelu_tanh": (
        "JumpReLU",
        {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_ste_to_input": True},
        {"l0": 0.3},
    ),
    "jumprelu_quadratic": (
        "JumpReLU",
        {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 6.0},
        {"l0": 0.05},
    ),
    "matryoshka": ("MatryoshkaBatchTopK", {"k": 4.5, "matryoshka_widths": [6, 16, LATENTS]}, {}),
    "matching_pursuit": ("MatchingPursuit", {"residual_threshold": 0.8, "max_iterations": 6}, {}),
}
JUMP = {"jumprelu_bandwidth": 0.2}
OWN = {
    "Gated": ("W_enc", "b_gate", "b_mag", "r_mag"),
    "JumpReLU": ("W_enc", "b_enc", "threshold"),
    "MatchingPursuit": (),
}


def weights(case, arrays):
    """Returns name -> the initial value of each of a case's tensors.

    The atoms of matching pursuit have norm 1, because a step along a longer one would overshoot.
    """
    kind = CASES[case][0]
    names = ("W_dec", "b_dec", *OWN.get(kind, ("W_enc", "b_enc")))
    found = {name: arrays[name] for name in names}
    if kind == "MatchingPursuit":
        norms = np.linalg.norm(found["W_dec"], axis=1, keepdims=True)
        found["W_dec"] = (found["W_dec"] / norms).astype(np.float32)
    return found


def batch(arrays, step):
    """Returns batch t, f32[B, D]."""
    rows = (step * BATCH + np.arange(BATCH)) % EXAMPLES
    return arrays["x"][rows]


def drawn():
    """Draws data and weights: sparse combinations off the origin, and atoms of different norms."""
    generator = np.random.default_rng(0)
    atoms = generator.normal(size=(2 * SIZE, SIZE))
    on = generator.random((EXAMPLES, 2 * SIZE)) < 0.15
    x = (on * generator.gamma(2.0, 0.6, on.shape)) @ atoms + generator.normal(size=SIZE)
    x = x / np.sqrt(np.mean(x**2))
    W_dec = generator.normal(size=(LATENTS, SIZE)) * generator.uniform(0.15, 0.5, (LATENTS, 1))
    b_enc = generator.normal(size=LATENTS) * 0.2
    b_enc[DEAD] -= 4.0
    arrays = {
        "x": x,
        "W_enc": W_dec.T + 0.05 * generator.normal(size=(SIZE, LATENTS)),
        "W_dec": W_dec,
        "b_enc": b_enc,
        "b_dec": 0.3 * generator.normal(size=SIZE),
        "b_gate": b_enc - 0.3,
        "b_mag": 0.2 * generator.normal(size=LATENTS),
        "r_mag": 0.2 * generator.normal(size=LATENTS),
        "threshold": generator.uniform(0.05, 0.5, LATENTS),
    }
    return {name: value.astype(np.float32) for name, value in arrays.items()}


class Peer:
    """One of SAELens' training SAEs, made from given weights.

    The trained leaf of JumpReLU is the logarithm of its threshold, as in aejax, while SAELens
    trains the threshold itself. Everything else is SAELens' own code.
    """

    def __init__(self, case, arrays):
        import torch
        from sae_lens import saes

        kind, config, coefficients = CASES[case]
        own = JUMP if kind == "JumpReLU" else {}
        module = getattr(saes, f"{kind}TrainingSAEConfig")
        if kind == "MatchingPursuit":
            own = {"decoder_init_norm": 1.0}  # it warns of any other norm
        made = module(d_in=SIZE, d_sae=LATENTS, dtype="float32", device="cpu", **own, **config)
        self.sae = getattr(saes, f"{kind}TrainingSAE")(made)
        self.coefficients = coefficients
        self.logarithm = None
        self.age = torch.zeros(LATENTS)
        self.age[torch.as_tensor(DEAD)] = 1000
        with torch.no_grad():
            for name, value in weights(case, arrays).items():
                getattr(self.sae, name).copy_(torch.from_numpy(value))
        if kind == "JumpReLU":
            self.logarithm = self.sae.threshold.detach().log().requires_grad_()
            del self.sae._parameters["threshold"]

    def leaves(self):
        """Returns the trained leaves by name."""
        leaves = {name: value for name, value in self.sae.named_parameters() if "." not in name}
        return leaves if self.logarithm is None else {**leaves, "threshold": self.logarithm}

    def step(self, x):
        """Runs one forward pass in training, and resets the ages of latents that fired."""
        import torch
        from sae_lens.saes.sae import TrainStepInput

        if self.logarithm is not None:
            self.sae.threshold = self.logarithm.exp()
        output = self.sae.training_forward_pass(
            TrainStepInput(
                sae_in=torch.from_numpy(x),
                coefficients=self.coefficients,
                dead_neuron_mask=self.age > WINDOW,
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        fired = output.feature_acts.detach().bool().any(dim=0)
        self.age = torch.where(fired, torch.zeros(()), self.age + 1)
        return output


def run(case, arrays):
    """Runs one case; returns name -> array: output, loss, grad_*, losses, and the final dead and
    threshold.
    """
    import torch

    torch.set_num_threads(1)
    peer = Peer(case, arrays)
    output = peer.step(batch(arrays, 0))
    output.loss.backward()
    result = {
        "output": output.sae_out.detach().numpy(),
        "loss": output.loss.detach().numpy(),
        **{f"grad_{name}": leaf.grad.numpy() for name, leaf in peer.leaves().items()},
    }
    peer = Peer(case, arrays)
    adam = torch.optim.Adam(list(peer.leaves().values()), lr=LEARNING_RATE)
    losses = []
    for step in range(STEPS):
        adam.zero_grad()
        loss = peer.step(batch(arrays, step)).loss
        loss.backward()
        adam.step()
        losses.append(loss.item())
    dead = (peer.age > WINDOW).sum().numpy()
    result |= {"losses": np.asarray(losses, np.float32), "dead": dead}
    if hasattr(peer.sae, "topk_threshold"):
        result["threshold"] = peer.sae.topk_threshold.numpy()
    return result


def main():
    """Writes the frozen arrays."""
    arrays = drawn()
    frozen = dict(arrays)
    for case in CASES:
        result = run(case, arrays)
        frozen |= {f"{case}/{name}": value for name, value in result.items()}
        first, last = result["losses"][[0, -1]]
        print(f"{case:20} loss {first:9.4f} -> {last:9.4f}, dead {int(result['dead'])}")
    np.savez_compressed(FROZEN, **frozen)
    print(f"wrote {FROZEN}: {FROZEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
