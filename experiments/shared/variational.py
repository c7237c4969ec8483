"""What the experiments with variational autoencoders share: nets, figures, page."""

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
from experiments.shared.training import Part, Trained

TEST_SEED = 11  # of the draws behind the test figures
SEEN = 1_000  # test examples whose mutual information with their codes is reported
SAMPLE_SEED = 12  # of the samples on the page

Event = tuple[int, ...]
Net = Literal["mlp", "conv"]
Size = tuple[Net, Event, int, int]  # net, shape of an example, width of the layers, latents


def nets(net: Net, event: Event, width: int) -> tuple[Any, Any]:
    """Encoder and decoder; of `conv` the first stage has width / 8 channels.

    Raises:
      UserError: if images are too small or not of (height, width, channels) for `conv`.
    """
    if net == "mlp":
        # Smooth, so that runs on other numbers of devices stay together: a unit of ReLU that
        # rounding moves across its kink sends them apart by 1e-4 within 200 steps.
        smooth = jax.nn.silu
        decoder = ae.nets.MLP((width,), shape=event, activation=smooth)
        return ae.nets.MLP((width,), activation=smooth), decoder
    if len(event) != 3 or min(event[:2]) < 8:
        raise UserError(f"--net conv needs images of at least 8x8 pixels, not {event}: use mlp")
    channels = max(width // 8, 1)
    encoder = ae.nets.Conv((channels, 2 * channels), width)
    return encoder, ae.nets.Deconv(event, (2 * channels, channels))


def vae(net: Net, event: Event, width: int, latents: int) -> ae.Autoencoder:
    """A variational autoencoder with a Bernoulli likelihood."""
    encoder, decoder = nets(net, event, width)
    return ae.Autoencoder(
        encoder,
        ae.Gaussian(latents),
        decoder,
        ae.priors.Standard(),
        ae.likelihoods.Bernoulli(),
    )


def plain(net: Net, event: Event, width: int, latents: int) -> ae.Autoencoder:
    """The standard autoencoder with the same nets: a point in place of a distribution."""
    encoder, decoder = nets(net, event, width)
    return ae.Autoencoder(
        encoder, ae.Point(latents), decoder, likelihood=ae.likelihoods.Bernoulli()
    )


def pair(
    size: Size,
    beta: optax.Schedule,
    tx: optax.GradientTransformation,
    rate: ae.Term = ae.losses.kl,
) -> dict[str, Part]:
    """A variational autoencoder, and beside it the plain one with the same nets.

    Args:
      size: of the nets.
      beta: weight of the rate at each step.
      tx: the optimiser of both; the weights are averaged.
      rate: the rate of the variational one.
    """
    watched = ae.watch(error=ae.losses.squared_error)
    elbo, reconstruction = ae.elbo(beta, rate), ae.reconstruction()
    return {
        "vae": Part(vae(*size), ae.merge(elbo, watched), tx, average=0.999),
        "plain": Part(plain(*size), ae.merge(reconstruction, watched), tx, average=0.999),
    }


def mean_square_error(model: Any, variables: Variables, split: Split) -> Any:
    """Of reconstructions, the mean over examples and pixels."""
    found = evaluation.means(evaluation.reconstruction(model, variables, split))
    return found["mean_square"]


def figures(config: Any, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Test figures of each seed: `bounds` of the part `vae`, of any other its error.

    Args:
      config: has the field `nll_draws`.
      trained: the parts after their last steps.
      splits: train, validation and test.
    """
    test = splits[2]
    named = bounds(config.nll_draws, trained["vae"], test)

    def error(label: str, variables: Variables) -> dict[str, Any]:
        return {"mean_square_error": mean_square_error(trained[label].part.model, variables, test)}

    errors = {
        label: evaluation.over_seeds(functools.partial(error, label), part.variables, part.seeds)
        for label, part in trained.items()
    }
    return {**named, **errors.pop("vae"), **errors}


def bounds(draws: int, trained: Trained, test: Split) -> dict[str, Any]:
    """Test figures of each seed of a part: ELBO with its parts, NLL, and what its latents carry.

    On grey images a Bernoulli gives no probability: there the figures are named `bce`.
    """
    model, key, seeds = trained.part.model, jax.random.key(TEST_SEED), trained.seeds
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
    """Whether the KL of the model's code under its prior is known per dimension."""

    def kl(variables: Variables, batch: ae.Batch) -> Any:
        bound = model.bind(variables)
        return bound.prior.kl(bound.posterior(batch), batch.context, bound.posterior)

    batch = next(test.batches(1))
    return jax.eval_shape(kl, variables, batch) is not None


def figures_and_epochs(config: Any, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """`figures`, and how often the steps of the run went through the train split."""
    epochs = config.steps * config.batch / len(splits[0])
    return {**figures(config, trained, splits), "epochs": epochs}


def named(splits: Splits) -> str:
    """The data set's name; of a folder of pictures its own, without the path to it."""
    return splits[0].name.rpartition("/")[0]


def page(title: str, text: str, models: Models, splits: Splits) -> Page:
    """The page of a variational autoencoder, beside the plain one where there is one."""
    key = jax.random.key(SAMPLE_SEED)
    sections = variational_sections(*models["vae"], splits, key, plain=models.get("plain"))
    return Page(title, text, sections)
