"""The objective of a semi-supervised model with few labels: M2 of Kingma et al. 2014.

The model is a conditional autoencoder, whose context is the label, with a classifier in its parts:

    model = Autoencoder(MLP((256,)), Gaussian(16), MLP((256,), shape), Standard(), Bernoulli(),
                        parts={"classifier": MLP((256,), shape=10)})
    objective = {"m2": (1.0, semi_supervised(alpha=0.1))}

The context is one-hot, f32[B, classes]; an example whose row is zero has no label. The term calls
the model once for each class, with the context of that class; that the model's own pass has no
label does not matter.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.losses.rate import kl
from aejax.losses.reconstruction import distortion
from aejax.types import Array, Forward, Term


def semi_supervised(alpha: float, rate: Term = kl, part: str = "classifier") -> Term:
    """Returns the term of M2 with a uniform prior over classes, f32[B], in nats.

    With the cost of class y, L(x, y) = rate + distortion + log(classes), it is L(x, y) - alpha *
    log q(y | x) where the label is known (Kingma et al. 2014, equations 6 and 9), and sum_y q(y |
    x) (L(x, y) + log q(y | x)) where it is not (equation 7). The sum over y is exact.

    Args:
      alpha: the weight of the classifier's cross-entropy on labelled examples; the paper takes 0.1
        times the ratio of all to labelled examples.
      rate: `losses.kl` or `losses.rate()`.
      part: the classifier's name in the model's `parts`; it maps x to logits f32[B, classes].
    """

    def semi_supervised(model: Any, forward: Forward) -> Array:
        batch, label = forward.batch, forward.batch.context
        if part not in model.parts:
            raise UserError(
                f"the model has no classifier named {part!r} in its parts: give Autoencoder "
                f"parts={{{part!r}: MLP((256,), shape=classes)}}"
            )
        if not isinstance(label, jax.Array) or label.ndim != 2:
            raise UserError(
                "semi_supervised reads one-hot labels, f32[B, classes], from the context, with "
                "zeros where there is no label: give batches such a context"
            )
        size, classes = label.shape
        log_q = jax.nn.log_softmax(model.parts[part](batch.x))

        def repeated(leaf: Array) -> Array:
            return jnp.broadcast_to(leaf[None], (classes, *leaf.shape)).reshape(
                (-1, *leaf.shape[1:])
            )

        every = jnp.repeat(jnp.eye(classes), size, axis=0)
        if batch.mask is not None:
            batch = batch._replace(mask=jnp.broadcast_to(batch.mask, batch.target.shape))
        wide = jax.tree.map(repeated, batch)._replace(context=every)
        features = model.features(wide)
        code = model.code(wide, features, forward.key, forward.step)
        passed = model.explain(wide, features, code, forward.step, forward.key)
        costs = rate(model, passed) + distortion(model, passed) + math.log(classes)
        costs = costs.reshape((classes, size)).T
        known = jnp.sum(label * (costs - alpha * log_q), axis=-1)
        unknown = jnp.sum(jnp.exp(log_q) * (costs + log_q), axis=-1)
        return jnp.where(jnp.sum(label, axis=-1) > 0, known, unknown)

    return semi_supervised
