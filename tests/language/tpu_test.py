"""Programs for TPUs: they lower on any machine, and compile where libtpu is installed."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.language.edits import add
from aejax.language.generation import Sampling, generate, padded
from aejax.language.reading import reader
from aejax.language.splicing import clamp, replace
from tests import kinds
from tests.language import cases


@pytest.mark.parametrize("scan", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_collection_edits_and_cached_generation_lower_for_tpus(scan):
    model, variables = cases.model(scan=scan)
    tokens = cases.tokens()
    edits = {
        "resid_post.0": clamp(cases.dictionary(), [1, 2], 3.0),
        "mlp_out.1": replace(cases.dictionary(), reads="mlp_in.1"),
        "resid_post.1": add(np.ones(cases.SIZE)),
    }
    read = reader(model, variables, ("resid_post.0", "mlp_out.1"), edits=edits)
    prompts = padded(tokens.tolist())

    def continued(key):
        choose = Sampling(0.8, top_k=4, top_p=0.9)
        return generate(model, variables, prompts, key, count=4, choose=choose, edits=edits)

    position = jnp.zeros(tokens.shape, jnp.int32)
    lowered = [
        jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
        for function, *arguments in ((read, tokens, position), (continued, jax.random.key(0)))
    ]
    assert "stablehlo.dot_general" in lowered[0]
    assert "stablehlo.while" in lowered[1]


COMPILED = """
import json, jax, jax.numpy as jnp, numpy as np, optax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import aejax as ae
from aejax import language as lm
from aejax.language.generation import Prompts, _generate
from aejax.training.compiled import state_layout
from tests.language import cases

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
devices = np.asarray(topology.devices).reshape(4, 4)
mesh = Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
SIZE, LATENTS, ROWS, LENGTH = 512, 2048, 16, 64
config = lm.Config(
    vocabulary=4096, layers=2, size=SIZE, heads=8, kv_heads=4, head_size=64, hidden=1024,
    context=256,
)
model = lm.Transformer(config, jnp.bfloat16, scan=True)

def laid(tree, rules):
    shapes = jax.eval_shape(lambda: tree) if not callable(tree) else jax.eval_shape(tree)
    layout = state_layout(shapes, mesh, rules)
    return jax.tree.map(
        lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, layout
    )

def rows(shape, dtype=jnp.int32):
    spec = PartitionSpec("data", *[None] * (len(shape) - 1))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

tokens = rows((ROWS, LENGTH))
variables = laid(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32)), lm.language_rules
)
dictionary = cases.dictionary(LATENTS, SIZE, activation="topk", k=16)
edits = {
    "resid_post.0": lm.replace(dictionary),
    "mlp_out.1": lm.clamp(dictionary, [3], 2.0, reads="mlp_in.1"),
}
taps = laid(lm.Taps(edits, ("resid_post.1",)), lm.language_rules)
key = laid(lambda: jax.random.key(0), ())

def collect(variables, taps, tokens, position):
    return model.apply(variables, tokens, position, taps=taps, method="hidden").seen

sae = ae.Autoencoder(ae.nets.Identity(), ae.TopK(LATENTS, 16), ae.nets.Dictionary(SIZE))
learner = ae.learner(sae, ae.sparse(), optax.adam(1e-3))
x = rows((1024, SIZE), jnp.float32)
zeros = jnp.zeros((8, SIZE))
state = laid(
    lambda: learner.init(jax.random.key(0), ae.Batch(zeros, zeros)), ae.dictionary_rules
)

programs = {
    "collection": jax.jit(collect).lower(variables, taps, tokens, tokens),
    "training": jax.jit(learner.step, donate_argnums=0).lower(state, ae.Batch(x, x)),
    "generation": _generate.lower(
        model, 8, lm.Sampling(0.8, top_p=0.9), variables, Prompts(tokens, tokens), key,
        lm.Taps(taps.edits), jnp.asarray([1]),
    ),
}
print(json.dumps({
    name: [lowered.compile().memory_analysis().temp_size_in_bytes / 2**20]
    for name, lowered in programs.items()
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'jax[tpu]'",
)
def test_collection_training_and_generation_compile_for_a_slice_of_tpus(monkeypatch):
    """For a v5e:4x4 as data=4,model=4, in bf16, by the compiler of TPUs itself; nothing runs."""
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    found = json.loads(kinds.output(kinds.python("-c", COMPILED), seconds=900))
    assert found.keys() == {"collection", "training", "generation"}
