"""Nets, test results and report page of the experiments with variational autoencoders."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import optax

import aejax as ae
from aejax import evaluation
from aejax.data import Split
from aejax.errors import UserError
from aejax.report import variational_sections
from aejax.types import Variables
from experiments.shared.experiment import Members, Models, Page, Splits
from experiments.shared.place import say
from experiments.shared.training import Job, Trained

TEST_SEED = 11  # seed of the draws for results on the test split
SEEN = 1_000  # number of test examples from which mutual information is computed
SAMPLE_SEED = 12  # seed of the samples on the report page

Event = tuple[int, ...]
Net = Literal["mlp", "conv"]
Size = tuple[Net, Event, int, int]  # net, shape of an example, width of the layers, latents


def nets(net: Net, event: Event, width: int) -> tuple[Any, Any]:
    """Returns an encoder and a decoder.

    Args:
      net: the type of both, "mlp" or "conv".
      event: the shape of an example.
      width: the number of units of a hidden layer; the first layer of "conv" has width / 8
        channels.

    Raises:
      UserError: if `net` is "conv" and examples are not images of at least 8x8 pixels.
    """
    if net == "mlp":
        # The activation is smooth, so that runs on different numbers of devices agree. With ReLU,
        # units whose sign changes by rounding make such runs differ by 1e-4 within 200 steps.
        smooth = jax.nn.silu
        decoder = ae.nets.MLP((width,), shape=event, activation=smooth)
        return ae.nets.MLP((width,), activation=smooth), decoder
    if len(event) != 3 or min(event[:2]) < 8:
        raise UserError(
            "--net conv needs images of at least 8x8 pixels, but the shape of an example is "
            f"{event}: use --net mlp"
        )
    channels = max(width // 8, 1)
    encoder = ae.nets.Conv((channels, 2 * channels), width)
    return encoder, ae.nets.Deconv(event, (2 * channels, channels))


def vae(net: Net, event: Event, width: int, latents: int) -> ae.Autoencoder:
    """Builds a variational autoencoder with a Bernoulli likelihood."""
    encoder, decoder = nets(net, event, width)
    return ae.Autoencoder(
        encoder,
        ae.Gaussian(latents),
        decoder,
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )


def plain(net: Net, event: Event, width: int, latents: int) -> ae.Autoencoder:
    """Builds an autoencoder with the nets of `vae`, but with a deterministic code and no prior."""
    encoder, decoder = nets(net, event, width)
    return ae.Autoencoder(
        encoder, ae.Point(latents), decoder, likelihood=ae.likelihoods.Bernoulli()
    )


def pair(
    size: Size,
    beta: optax.Schedule,
    tx: optax.GradientTransformation,
    rate: ae.Term = ae.losses.kl,
) -> dict[str, Job]:
    """Returns the jobs of a variational autoencoder and of a plain one with the same nets.

    Args:
      size: type of net, shape of an example, width of the layers, number of latents.
      beta: the weight of the rate at each step.
      tx: the optimiser of both models; their weights are averaged over steps.
      rate: the term for the rate (KL) of the variational autoencoder.
    """
    watched = ae.watch(error=ae.losses.squared_error)
    elbo, reconstruction = ae.elbo(beta, rate), ae.reconstruction()
    return {
        "vae": Job(vae(*size), ae.merge(elbo, watched), tx, average=0.999),
        "plain": Job(plain(*size), ae.merge(reconstruction, watched), tx, average=0.999),
    }


def mean_square_error(model: Any, variables: Variables, split: Split) -> Any:
    """Returns the mean square error of reconstructions over examples and pixels."""
    found = evaluation.means(evaluation.reconstruction(model, variables, split))
    return found["mean_square"]


def figures(config: Any, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Computes test results: `bounds` of the job "vae", and the reconstruction errors of all jobs.

    Each result has one value for each seed. The errors are mean square errors.

    Args:
      config: the experiment's settings, with the field `nll_draws`.
      trained: the trained jobs.
      splits: train, validation and test.
    """
    test = splits[2]
    named = bounds(config.nll_draws, trained["vae"], test)

    def error(label: str, variables: Variables) -> dict[str, Any]:
        return {"mean_square_error": mean_square_error(trained[label].job.model, variables, test)}

    errors = {
        label: evaluation.over_seeds(functools.partial(error, label), done.variables, done.seeds)
        for label, done in trained.items()
    }
    return {**named, **errors.pop("vae"), **errors}


def bounds(draws: int, trained: Trained, test: Split) -> dict[str, Any]:
    """Computes test results of each seed: the ELBO, its terms, the NLL and the use of latents.

    On grey images a Bernoulli likelihood is not a probability, so the NLL is called `bce` and the
    ELBO `bce_bound`.

    Args:
      draws: the number of importance samples of the NLL.
      trained: a trained job.
      test: the test split.
    """
    model, key, seeds = trained.job.model, jax.random.key(TEST_SEED), trained.seeds
    cost = evaluation.nll_cost(model, next(evaluation.each(trained.variables, seeds)), test, draws)
    say(f"{cost}, for each of {seeds} seed(s)")
    seen = test.take(SEEN)
    batch = next(seen.batches(len(seen)))
    used = jax.jit(lambda variables: evaluation.usage(model.bind(variables), batch, key))

    def own(variables: Variables) -> dict[str, Any]:
        bound = evaluation.means(evaluation.elbo(model, variables, test, key, draws=10))
        nll = evaluation.means(evaluation.nll(model, variables, test, key, draws=draws))
        units = evaluation.active_units(model, variables, test)
        found = {**bound, **nll, "active_units": units.count}
        carried = used(variables)
        for name in ("mutual_information", "mutual_information_of_top"):
            if name in carried:
                found[name] = carried[name]
        if not _has_closed_kl(model, variables, test):
            return found
        kl = evaluation.kl_per_dimension(model, variables, test, key)
        return {**found, "largest_kl": kl.max()}

    values = evaluation.over_seeds(own, trained.variables, seeds)
    return {
        evaluation.figure_name(name, test.binarised, model.likelihood): value
        for name, value in values.items()
    }


def _has_closed_kl(model: Any, variables: Variables, test: Any) -> bool:
    """Returns whether the KL of the model's posterior from the prior has a closed form."""

    def kl(variables: Variables, batch: ae.Batch) -> Any:
        bound = model.bind(variables)
        return bound.prior.kl(bound.posterior(batch), batch.context, bound.posterior)

    batch = next(test.batches(1))
    return jax.eval_shape(kl, variables, batch) is not None


def figures_and_epochs(config: Any, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Returns the results of `figures`, and `epochs`, the number of passes over the train split."""
    epochs = config.steps * config.batch / len(splits[0])
    return {**figures(config, trained, splits), "epochs": epochs}


def named(splits: Splits) -> str:
    """Returns the name of the data set; for a folder of images, this is the folder's name."""
    return splits[0].name.rpartition("/")[0]


def page(title: str, text: str, models: Models, splits: Splits) -> Page:
    """Builds the report page on the model "vae", compared with "plain" if there is such a model."""
    key = jax.random.key(SAMPLE_SEED)
    sections = variational_sections(*models["vae"], splits, key, plain=models.get("plain"))
    return Page(title, text, sections)
