"""Tests that a PyTorch model fills the same store as ours; it needs the extra `parity`."""

import importlib.util

import numpy as np
import pytest

from aejax.data.activations import activations
from aejax.errors import UserError
from aejax.language.huggingface import load_huggingface
from aejax.language.packing import Packing, packs
from aejax.language.reading import collect, reader
from aejax.language.torch_model import torch_reader
from tests.language import cases
from tests.language.parity import reference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None
        or importlib.util.find_spec("torch") is None,
        reason="transformers or torch is not installed: pip install -e '.[parity]'",
    ),
]


def test_two_readers_fill_the_same_store(tmp_path):
    """Each row holds one text, so there is padding. Fails if it is attended to."""
    ours = reader(*load_huggingface(reference.HERE / "qwen2"), ("resid_post.0",))
    theirs = torch_reader(reference.made("qwen2"), {"resid_post.0": "model.layers.0"})
    texts = ["abcde", "fghijklmnop", "qrs"]

    def batches(start):
        return packs(cases.Letters(), texts, Packing(8, together=False), 2, start)

    stores = []
    for name, read in (("ours", ours), ("theirs", theirs)):
        collect(read, batches, tmp_path / name, provenance={})
        stores.append(np.asarray(activations(tmp_path / name).tokens("resid_post.0")))
    assert len(stores[0]) == 19
    np.testing.assert_allclose(*stores, atol=1e-5)
    with pytest.raises(UserError, match=r"no module 'model.layers.9'"):
        torch_reader(reference.made("qwen2"), {"resid_post.9": "model.layers.9"})
