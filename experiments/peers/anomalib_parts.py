"""Fits anomalib's PaDiM and PatchCore on the data of a finished run of `inspect`.

    python -m experiments.peers.anomalib_parts runs/inspect --manual-dir DIR

It needs an interpreter with anomalib and torch besides the packages of aejax. Both models take the
run's pictures and seeds. Their backbone, a resnet18 of timm, has random weights, because ImageNet's
must be downloaded; `--pretrained` takes those. Everything else is anomalib's default. Scores are
judged by anomalib's measures, from which those of aejax may differ by 1e-3. The rows `padim,
anomalib` and `patchcore, anomalib` are added to the run's result.json.
"""

import argparse
import pathlib
import sys

import anomalib
import numpy as np
import torch
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.f1_score import _F1Max
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

from aejax.evaluation import anomaly
from aejax.files import read_json, write_json
from experiments.shared import parts
from experiments.shared.experiment import named, recorded, recorded_data
from experiments.shared.training import summary

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet
BATCH = 32


def model_of(name: str, pretrained: bool) -> torch.nn.Module:
    """Returns one of anomalib's models, as its defaults are but for the smaller backbone."""
    if name == "padim":
        return PadimModel(backbone="resnet18", pre_trained=pretrained)
    layers = ["layer2", "layer3"]
    return PatchcoreModel(layers=layers, backbone="resnet18", pre_trained=pretrained)


def scored(model: torch.nn.Module, good: np.ndarray, tests: np.ndarray) -> tuple:
    """Fits a model on pictures u8[N, H, W, C]; returns the scores and maps of others."""
    model.train()
    model.feature_extractor.eval()
    for batch in batches(good):
        model(batch)
    if isinstance(model, PadimModel):
        model.fit()
    else:
        model.subsample_embedding(0.1)
    model.eval()
    with torch.no_grad():
        found = [model(batch) for batch in batches(tests)]
    scores, maps = (
        torch.cat([getattr(part, name) for part in found]) for name in ("pred_score", "anomaly_map")
    )
    return scores.numpy().reshape(-1), maps.numpy().reshape(len(tests), *tests.shape[1:3])


def batches(pictures: np.ndarray) -> list[torch.Tensor]:
    """Returns pictures u8[N, H, W, C] as normalised batches f32[B, 3, H, W]."""
    colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3)) / 255.0
    planes = ((colour - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    return [torch.from_numpy(planes[i : i + BATCH]) for i in range(0, len(planes), BATCH)]


def measured(scores: np.ndarray, maps: np.ndarray, bad: np.ndarray, masks: list | None) -> dict:
    """Returns anomalib's measures, after comparing them with those of aejax."""
    ours = {n: c.value for n, c in anomaly.image_measures(scores, bad, draws=0).items()}
    found = {}
    for name, metric in (("auroc", _AUROC()), ("aupr", _AUPR()), ("f1max", _F1Max())):
        metric.update(torch.from_numpy(scores), torch.from_numpy(bad))
        found[name] = float(metric.compute())
    if masks is not None:
        marks = np.stack(masks)
        ours |= {n: c.value for n, c in anomaly.pixel_measures(list(maps), masks, draws=0).items()}
        flat = [torch.from_numpy(x.reshape(-1)) for x in (maps, marks)]
        pixels = _AUROC()
        pixels.update(*flat)
        found["pixel_auroc"] = float(pixels.compute())
        for limit in anomaly.LIMITS:
            overlap = _AUPRO(fpr_limit=limit)
            overlap.update(torch.from_numpy(maps), torch.from_numpy(marks).int())
            found[f"aupro_{limit:g}"] = float(overlap.compute())
    apart = max(abs(found[name] - ours[name]) for name in found)
    sys.stdout.write(f"  largest difference from aejax's measures: {apart:.2e}\n")
    if apart > 1e-3:
        raise SystemExit(f"the measures differ by {apart}: {found} and {ours}")
    return found


def main() -> None:
    """Fits both models with each seed, and adds their rows to the run's results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--manual-dir")
    parser.add_argument("--pretrained", action="store_true")
    arguments = parser.parse_args()
    config = recorded(arguments.run, named(arguments.run))
    train, _, test = recorded_data(arguments.run, None, arguments.manual_dir, own=True)
    bad, masks = parts.kinds(test) > 0, parts.masks(test)
    result = read_json(arguments.run / "result.json", {})
    for name in ("padim", "patchcore"):
        rows = []
        for seed in range(config.seed, config.seed + config.seeds):
            torch.manual_seed(seed)
            model = model_of(name, arguments.pretrained)
            scores, maps = scored(model, train.arrays["image"], test.arrays["image"])
            rows.append(measured(scores, maps, bad, masks))
            sys.stdout.write(f"{name}, seed {seed}: {rows[-1]}\n")
            sys.stdout.flush()
        cells = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        result[f"{name}, anomalib"] = summary(cells)
    result["peer_versions"] = {"anomalib": anomalib.__version__, "torch": torch.__version__}
    write_json(arguments.run / "result.json", result)


if __name__ == "__main__":
    main()
