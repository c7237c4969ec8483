"""Exports to ONNX, with PyTorch's own exporter, the decoder that bench-edge measures.

`python torch_export.py WEIGHTS.npz OUT.onnx` needs torch, onnx and onnxscript. The net is the MLP
of digits-vae with the weights given: z -> h = silu(z W + b) -> sigmoid(h V + c), as an image.
"""

import sys

import numpy as np
import torch


class Decoder(torch.nn.Module):
    """An MLP with one hidden layer and probabilities as its output."""

    def __init__(self, weights, shape):
        super().__init__()
        self.shape = shape
        self.layers = torch.nn.Sequential()
        for name in ("hidden_0", "output"):
            kernel = torch.from_numpy(weights[f"params.decoder.{name}.kernel"])
            layer = torch.nn.Linear(*kernel.shape)
            layer.weight.data = kernel.T.contiguous()
            layer.bias.data = torch.from_numpy(weights[f"params.decoder.{name}.bias"])
            self.layers.append(layer)
            self.layers.append(torch.nn.SiLU() if name == "hidden_0" else torch.nn.Sigmoid())

    def forward(self, z):
        """Returns the mean of each pixel, f32[B, *shape]."""
        return self.layers(z).reshape(-1, *self.shape)


def main():
    """Reads the weights and writes the ONNX file."""
    with np.load(sys.argv[1], allow_pickle=False) as arrays:
        weights = dict(arrays)
    shape = tuple(int(size) for size in weights.pop("shape"))
    decoder = Decoder(weights, shape).eval()
    latents = decoder.layers[0].in_features
    torch.onnx.export(
        decoder,
        (torch.zeros(2, latents),),
        sys.argv[2],
        input_names=["z"],
        output_names=["mean"],
        dynamic_shapes=({0: torch.export.Dim("B")},),
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
