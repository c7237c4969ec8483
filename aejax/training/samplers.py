"""Priors that are fitted to the codes of a trained model, from which `sample` then draws.

    model, variables = samplers.fitted(model, variables, train, samplers.gaussian_mixture(10), key)
    model, variables = samplers.fitted(
        model, variables, train, samplers.by_likelihood(priors.Flow()), key
    )
    model.bind(variables).sample(key, 16)

The model may be of any kind: a plain autoencoder, which has no prior, then samples; a variational
one draws from the distribution that its codes have instead of the prior that it was trained with
(Ghosh et al. 2020, section 4); quantised codes need a prior of indices, such as `priors.Codes`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax.checks import at_least
from aejax.contracts import Prior
from aejax.data.fixed import Data, as_data
from aejax.errors import UserError
from aejax.priors import full_mixture
from aejax.types import Array, Batch, Key, Params, Variables

# (latents [N, ...], context [N, ...] or None, key) -> the prior and its parameters
Fit = Callable[[Any, Any, Key], tuple[Prior, Params]]


def fitted(
    model: Any, variables: Variables, data: Data, fit: Fit, key: Key, *, batch: int = 500
) -> tuple[Any, Variables]:
    """Returns the model with a prior that is fitted to its codes, and its variables.

    Args:
      model: a trained Autoencoder.
      variables: the variables of one model, without a leading axis of seeds.
      data: N examples, such as the training split.
      fit: how the prior is fitted: `gaussian_mixture(...)`, `by_likelihood(...)`, or a function of
        your own.
      key: the key of one code for each example, where codes are random, and of the fit.
      batch: the number of examples encoded at a time.

    Raises:
      UserError: if `fit` is no function, or cannot be fitted to the latents.
    """
    if not callable(fit):
        raise UserError(
            f"fit is a {type(fit).__name__}, which is not a function: give a prior as "
            "samplers.by_likelihood(prior)"
        )
    code_key, fit_key = jax.random.split(key)

    @jax.jit
    def encode(batch: Batch, key: Key) -> Any:
        bound = model.bind(variables)
        return bound.code(batch, bound.features(batch), key).latent

    pairs = [
        jax.tree.map(np.asarray, (encode(each, jax.random.fold_in(code_key, i)), each.context))
        for i, each in enumerate(as_data(data).batches(batch))
    ]
    latents, context = jax.tree.map(lambda *leaves: np.concatenate(leaves), *pairs)
    prior, params = fit(latents, context, fit_key)
    own = {**variables["params"], "prior": params}
    return model.clone(prior=prior), {**variables, "params": own}


def by_likelihood(
    prior: Prior, tx: optax.GradientTransformation | None = None, steps: int = 2000, size: int = 256
) -> Fit:
    """Returns a fit that maximises the log-probability of the latents given their context.

    Args:
      prior: any prior but `priors.Vamp`.
      tx: the optimiser; None: Adam, whose learning rate falls from 1e-3 to 0.
      steps: the number of its steps.
      size: the number of latents in a batch.
    """
    at_least(1, "steps", steps)
    tx = optax.adam(optax.cosine_decay_schedule(1e-3, steps)) if tx is None else tx

    def fit(latents: Any, context: Any, key: Key) -> tuple[Prior, Params]:
        count = jax.tree.leaves(latents)[0].shape[0]
        resident = jax.tree.map(jnp.asarray, (latents, context))

        def part(key: Key) -> Any:
            rows = jax.random.randint(key, (min(size, count),), 0, count)
            return jax.tree.map(lambda leaf: leaf[rows], resident)

        init = functools.partial(prior.init, method="log_prob")

        def cost(params: Params, key: Key) -> Array:
            z, given = part(key)
            density: Any = prior.apply({"params": params}, z, given, method="log_prob")
            return -jnp.mean(density)

        @jax.jit
        def train(key: Key) -> Params:
            params: Any = init(key, *part(key)).get("params", {})

            def step(carried: Any, i: Array) -> tuple[Any, None]:
                params, state = carried
                gradient = jax.grad(cost)(params, jax.random.fold_in(key, i))
                updates, state = tx.update(gradient, state, params)
                return (optax.apply_updates(params, updates), state), None

            start = (params, tx.init(params))
            return jax.lax.scan(step, start, jnp.arange(1, steps + 1))[0][0]

        return prior, train(key)

    return fit


def gaussian_mixture(components: int = 10) -> Fit:
    """Returns a fit of a mixture of Gaussians with full covariances by expectation-maximisation.

    It is scikit-learn's `GaussianMixture` with its defaults, as `priors.FullMixture`.

    Args:
      components: the number of Gaussians.
    """
    at_least(1, "components", components)

    def fit(latents: Any, context: Any, key: Key) -> tuple[Prior, Params]:
        from sklearn.mixture import GaussianMixture

        if not isinstance(latents, np.ndarray) or latents.ndim != 2 or latents.dtype.kind != "f":
            raise UserError(
                "a mixture of Gaussians is fitted to vectors of real numbers, which the latents of "
                "this model are not: use samplers.by_likelihood with a prior that suits them"
            )
        if context is not None:
            raise UserError(
                "a mixture of Gaussians does not depend on the context that this data has: use "
                "samplers.by_likelihood(priors.Flow())"
            )
        if len(latents) < components:
            raise UserError(
                f"a mixture of {components} Gaussians cannot be fitted to {len(latents)} examples: "
                "give fewer components or more examples"
            )
        seed = int(jax.random.bits(key)) % 2**31
        found: Any = GaussianMixture(components, random_state=seed).fit(latents.astype(np.float64))
        return full_mixture.mixture(found.weights_, found.means_, found.covariances_)

    return fit
