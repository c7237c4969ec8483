"""What the experiments with variational autoencoders share: nets, figures, page."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax

import aejax as ae
from aejax import evaluation
from aejax.data import Split
from aejax.errors import UserError
from aejax.types import Variables
from experiments.shared.driver import Members, Page, Splits, say
from experiments.shared.training import Trained

TEST_SEED = 11  # of the draws behind the test figures
SEEN = 1_000  # test examples whose mutual information with their codes is reported
SAMPLE_SEED = 12  # of the samples on the page

Event = tuple[int, ...]
Net = Literal["mlp", "conv"]


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


def figures(draws: int, trained: Members, splits: Splits) -> Mapping[str, Any]:
    """Test figures of each seed: `bounds` of the part `vae`, of any other its error."""
    test = splits[2]
    named = bounds(draws, trained["vae"], test)

    def error(label: str, variables: Variables) -> dict[str, Any]:
        model = trained[label].part.model
        record = evaluation.reconstruction(model, variables, test)
        return {"mean_square_error": evaluation.means(record)["mean_square"]}

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


def epochs(steps: int, batch: int, split: Any) -> float:
    """How often the steps of a run go through a split."""
    return steps * batch / len(split)


def named(splits: Splits) -> str:
    """The data set's name; of a folder of pictures its own, without the path to it."""
    return splits[0].name.rpartition("/")[0]


def page(title: str, text: str, models: dict[str, tuple[Any, Variables]], splits: Splits) -> Page:
    """The page of a variational autoencoder, beside the plain one where there is one."""
    from aejax.report import variational_sections

    key = jax.random.key(SAMPLE_SEED)
    sections = variational_sections(*models["vae"], splits, key, plain=models.get("plain"))
    return Page(title, text, sections)
