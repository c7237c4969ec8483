"""Detectors of anomalies in pictures, fitted on good pictures alone.

    detector = inspection.gaussian(inspection.patches(8, 4))
    state = detector.fit(jax.random.key(0), good)           # good u8[N, H, W, C]
    found = inspection.detect(detector, state, pictures)    # pictures u8[M, H, W, C]
    found.score, found.map                                  # f32[M], f32[M, H, W]

A detector is a record of three pure functions; its state is a mapping of arrays, which np.savez
stores. `aejax.evaluation.anomaly` measures detectors and chooses thresholds.
"""

from aejax.inspection.detector import Detector, Features, Found, detect
from aejax.inspection.features import encoded, joined, network, onnx, patches, pooled
from aejax.inspection.gaussian import gaussian
from aejax.inspection.neighbours import neighbours
from aejax.inspection.principal import principal
from aejax.inspection.reconstruction import negative_elbo, reconstruction, regret
from aejax.inspection.sparse import explain, sparse, sparse_sweep

__all__ = [
    "Detector",
    "Features",
    "Found",
    "detect",
    "encoded",
    "explain",
    "gaussian",
    "joined",
    "negative_elbo",
    "neighbours",
    "network",
    "onnx",
    "patches",
    "pooled",
    "principal",
    "reconstruction",
    "regret",
    "sparse",
    "sparse_sweep",
]
