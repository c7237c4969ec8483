"""Tests that errors say in one sentence which part and shapes are wrong, and what to do."""

from __future__ import annotations

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

import aejax as ae
from tests import kinds

KEY = jax.random.key(0)


def initialised(model, batch):
    """Shapes alone: nothing is computed."""
    return jax.eval_shape(model.init, KEY, batch)


def pictures_without_channels():
    x = jnp.zeros((8, 28, 28))
    initialised(kinds.convolutional(), ae.Batch(x, x))


def conditional_without_context():
    model, x = kinds.variational(), jnp.zeros((3, *kinds.EVENT))
    variables = model.init(KEY, ae.Batch(x, x, context=jnp.ones((3, 2))))
    model.apply(variables, KEY, 5, method="sample")


def seeds_together():
    learner = ae.seeds(kinds.learner("vae"), 5)
    batch = kinds.batch()
    state = jax.eval_shape(learner.init, KEY, batch)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), learner.variables(state))
    kinds.variational().apply(variables, batch)


def codebook_under_a_standard_prior():
    model = kinds.variational().clone(bottleneck=ae.VectorQuantised(8, 4))
    jax.eval_shape(ae.learner(model, ae.elbo(), optax.sgd(0.1)).init, KEY, kinds.batch())


def one_draw():
    objective = ae.elbo(rate=ae.losses.rate())
    ae.learner(kinds.variational(), objective, optax.sgd(0.1), bound=ae.bounds.iwae)


def idle_axis():
    class Four:
        shape = {"batch": 4}  # noqa: RUF012

    ae.compiled(kinds.learner("vae"), Four())


def another_event():
    model, x, wide = kinds.variational(), jnp.zeros((3, *kinds.EVENT)), jnp.zeros((3, 9, 9, 1))
    model.apply(model.init(KEY, ae.Batch(x, x)), ae.Batch(wide, wide), method="encode")


def parts(**given):
    """A learner of the smallest VAE, with some of its arguments replaced."""
    model = ae.Autoencoder(
        ae.nets.MLP(()), ae.Gaussian(1), ae.nets.MLP((), shape=2), ae.priors.Standard()
    )
    model = model.clone(likelihood=ae.likelihoods.Gaussian(), **given.pop("model", {}))
    options = {"objective": ae.elbo(), "tx": optax.sgd(0.1), **given}
    return ae.learner(model, **options)


def started(learner, key=KEY, shape=(3, 2)):
    x = jnp.zeros(shape)
    jax.eval_shape(learner.init, key, ae.Batch(x, x))


class HalfCode(NamedTuple):
    """Has no `latent`."""

    z: jax.Array

    def log_q(self, stick=False):
        return self.z[:, 0]


class Half(ae.contracts.VectorBottleneck):
    """Returns a code without `latent`."""

    def __call__(self, features, key, given=ae.contracts.NOTHING):
        return HalfCode(features[:, : self.latents])  # pyright: ignore[reportReturnType]


def half_a_code():
    started(parts(model={"bottleneck": Half(1)}, objective=ae.elbo(rate=ae.losses.rate())))


def evaluated_batchnorm():
    encoder = nn.Sequential([nn.BatchNorm(use_running_average=False)])
    learner = parts(model={"encoder": encoder})
    x = jnp.zeros((3, 2))
    variables = learner.variables(jax.eval_shape(learner.init, KEY, ae.Batch(x, x)))
    jax.eval_shape(learner.evaluate, variables, ae.Batch(x, x), KEY, 0)


def flat_for_maps():
    ae.nets.SpatialDecoder((8, 8, 3)).init(KEY, jnp.zeros((2, 8)))


def bytes_alone():
    kinds.convolutional().posterior(np.zeros((2, 8, 8), np.uint8))


def turned_alone():
    kinds.convolutional().posterior(np.zeros((2, 3, 8, 8), np.float32))


class Both(nn.Module):
    """Returns its values twice, as a mean and a deviation."""

    @nn.compact
    def __call__(self, values):
        values = nn.Dense(2)(values)
        return values, values


class Three(nn.Module):
    """Takes more than the model gives."""

    def __call__(self, values, context, more):
        return values


def unbound():
    kinds.plain().bind({"memory": {}}).encode(jnp.zeros((2, *kinds.EVENT)))


REFUSED = {
    "tuple": (
        lambda: started(parts(model={"decoder": Both()})),
        "the decoder Both returns a tuple instead of one array, but Gaussian needs (3, 2) for a",
    ),
    "nothing": (
        lambda: started(parts(model={"encoder": nn.Sequential([lambda x: None])})),
        "the encoder Sequential returns None: return the features",
    ),
    "mapping": (
        lambda: started(parts(model={"encoder": nn.Sequential([lambda x: {"x": x}])})),
        "this net takes one array, but was given a dict",
    ),
    "class": (
        lambda: parts(model={"encoder": ae.nets.MLP}),
        "the encoder of this model is the class MLP: give an object of it, as MLP(...)",
    ),
    "class-of-a-prior": (
        lambda: parts(model={"prior": ae.priors.Standard}),
        "the prior of this model is the class Standard: give an object",
    ),
    "arguments": (
        lambda: started(parts(model={"encoder": Three()})),
        "its __call__ has the arguments (values, context, more): missing a required argument: 'mo",
    ),
    "no-rows": (lambda: kinds.plain().posterior(np.zeros((0, 2))), "shape (0, 2), no rows"),
    "variables": (unbound, "the variables hold no parameters for the encoder MLP: give those of"),
    "draws-key": (
        lambda: kinds.variational().bind({}).sample(0, 2),  # pyright: ignore[reportArgumentType]
        "the key is 0, which is not a random key",
    ),
    "bound": (lambda: parts(bound=ae.bounds.miwae), "which is not a Bound: give one such as"),
    "objective": (lambda: parts(objective=ae.elbo), "call the function that makes one, as in ae"),
    "term": (
        lambda: parts(objective={"mmd": (1.0, ae.losses.mmd)}),
        "the term 'mmd' cannot be called with (model, forward), as too many positional arguments",
    ),
    "half-draws": (lambda: parts(draws=5.0), "draws is 5.0, the number of codes"),
    "key": (lambda: parts().init(0, None), "the key is 0, which is not a random key"),
    "seeds-axis": (
        lambda: started(ae.seeds(parts(), 4), shape=(4, 3, 2)),
        "the batch has a first axis of 4, as many as there are seeds",
    ),
    "code": (half_a_code, "HalfCode has no latent: define it"),
    "batchnorm": (evaluated_batchnorm, "updates its running averages in evaluation too"),
    "vectors": (
        lambda: ae.nets.Conv((4,)).init(KEY, jnp.zeros((2, 12))),
        "a convolution needs pictures [B, height, width, channels], but x has shape (2, 12)",
    ),
    "maps": (flat_for_maps, "SpatialDecoder needs maps [B, height, width, channels], but z has"),
    "bytes": (bytes_alone, "x holds bytes of shape (2, 8, 8), which look like pictures"),
    "turned": (turned_alone, "looks like pictures with the 3 channels first"),
    "rank": (
        pictures_without_channels,
        "the encoder Conv returns shape (2, 16) for x of shape (8, 28, 28), whose first axis is "
        "the batch",
    ),
    "event": (
        another_event,
        "the encoder MLP was called with values of shape (3, 9, 9, 1) without a context, which "
        "needs parameters of shape (81, 32), but it has (64, 32)",
    ),
    "context": (
        conditional_without_context,
        "the decoder MLP was called with values of shape (5, 4) without a context, which needs "
        "parameters of shape (4, 32), but it has (6, 32)",
    ),
    "seeds": (
        seeds_together,
        "the encoder MLP has parameters of shape (5, 64, 32) in place of (64, 32), which are the "
        "parameters of several seeds: choose one of them, as in load(folder, seed=0)",
    ),
    "codebook": (
        codebook_under_a_standard_prior,
        "the latent of a VectorCode holds the indices of codes, to which the prior Standard gives "
        "no probability: pair priors.Codes and priors.Categorical with GumbelSoftmax",
    ),
    "draws": (one_draw, "this bound reduces several draws, but draws is 1"),
    "mesh": (idle_axis, "nothing is sharded over the mesh axis 'batch', so its 4 devices"),
}


@pytest.mark.parametrize(("act", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_one_sentence_says_what_is_wrong(act, said):
    with pytest.raises(ae.UserError, match=re.escape(said)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_an_axis_that_a_rule_names_is_used():
    class Four:
        shape = {"data": 2, "expert": 2}  # noqa: RUF012

    ae.compiled(kinds.learner("vae"), Four(), ((".*", PartitionSpec("expert")),))


@pytest.mark.parametrize(
    "levels",
    [2, *(pytest.param(levels, marks=pytest.mark.slow) for levels in (4, 6, 8))],
)
def test_even_lattices_have_a_gradient_at_0(levels):
    """Of order 1, also with 2 levels, whose threshold is at 0 (was at -3.8: one code of 4,096)."""
    size = 12 if levels == 2 else 3
    bottleneck = ae.FiniteScalarQuantised((levels,) * size)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(512, size)), jnp.float32)
    dense = {"kernel": jnp.eye(size), "bias": jnp.zeros(size)}
    shapes = jax.eval_shape(lambda: bottleneck.init(KEY, features, None))["params"]
    params = jax.tree.unflatten(
        jax.tree.structure(shapes),
        [dense["bias"] if leaf.ndim == 1 else dense["kernel"] for leaf in jax.tree.leaves(shapes)],
    )

    def z(x):
        return bottleneck.apply({"params": params}, x[None], None).z[0, 0]

    slope = jnp.diagonal(jax.jacobian(z)(jnp.zeros(size)))
    assert (np.asarray(slope) > 0.4).all()
    assert (np.asarray(slope) < 2.0).all()
    if levels == 2:
        code = bottleneck.apply({"params": params}, features, None)
        np.testing.assert_array_equal(code.z[:, 0] == 0.0, features >= 0)
        assert len(np.unique(code.indices)) > 400
