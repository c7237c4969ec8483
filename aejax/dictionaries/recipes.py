"""Recipes: a model, objective, optimiser and initialisation for each type of sparse code.

    recipe = ae.recipes.jumprelu((32,), latents=128, l0=3.0)
    learner = ae.learner(recipe.model, recipe.objective, recipe.tx, initialise=recipe.initialise)

A recipe follows its paper, except for what all recipes share (`dictionaries.recipe`), and is a
record whose fields may be replaced. Arguments that mean the same in all recipes:

    event          the shape of one example, such as (32,), or the number of its values; for a
                   transcoder, whose inputs may have another shape, that of one target
    latents        the number of latents, m
    k              the number of active latents, on which topk, batchtopk and matryoshka are fixed;
                   for the last two it is the mean over a batch, and may be traced in a sweep
    auxk           the weight of AuxK, a loss that revives dead latents; None: no such loss
    l0             the mean number of active latents, which all other recipes reach by a penalty
                   whose weight a controller adjusts in training (see
                   `bottlenecks.sparse.memory.Controller`); it may be traced in a sweep
    weight         the fixed weight of that penalty, instead of l0
    steps          the number of training steps, over the last fifth of which the learning rate
                   falls to 0; None: the rate is constant, for any number of steps
    learning_rate  Adam's learning rate; None: 1 / (60 sqrt(D)) for examples of D values, which is
                   3e-3 for D = 32 and 6e-4 for D = 768
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aejax import losses
from aejax.bottlenecks import AnnealedReLU, BatchTopK, Gated, JumpReLU, ReLU, TopK
from aejax.dictionaries import objectives
from aejax.dictionaries.recipe import Event, Recipe, Training, quiet, recipe, sparsity
from aejax.errors import UserError
from aejax.nets import Dictionary, Scale
from aejax.objective import merge, sparse
from aejax.training.initialise import layered, tied
from aejax.types import Objective

AUXK = 1 / 32  # the weight of AuxK (Gao et al. 2024)


def topk(
    event: Event,
    latents: int,
    k: int,
    active: Any = None,
    auxk: Any = AUXK,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of TopK with AuxK (Gao et al. 2024).

    Args:
      active: the number of active latents, at most k, which may be a tracer in a sweep; None: k.
    """
    code = TopK(latents, k, active=active)  # pyright: ignore[reportCallIssue]
    return _fixed(event, code, sparse(auxk=auxk), Training(steps, learning_rate))


def batchtopk(
    event: Event,
    latents: int,
    k: Any,
    slots: int | None = None,
    auxk: Any = AUXK,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of BatchTopK with AuxK (Bussmann et al. 2024).

    Args:
      slots: the largest k of a sweep; None: k.
    """
    code = BatchTopK(latents, k, slots)  # pyright: ignore[reportCallIssue]
    return _fixed(event, code, sparse(auxk=auxk), Training(steps, learning_rate))


def matryoshka(
    event: Event,
    latents: int,
    k: Any,
    prefixes: Sequence[int] | None = None,
    slots: int | None = None,
    auxk: Any = AUXK,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of Matryoshka BatchTopK with AuxK (Bussmann et al. 2025).

    Several prefixes of the latents are trained to reconstruct the input by themselves.

    Args:
      prefixes: the prefix lengths m_1 < ... < m_G = m; None: `losses.fractions(latents)`.
      slots: the largest k of a sweep; None: k.
    """
    lengths = losses.fractions(latents) if prefixes is None else prefixes
    code = BatchTopK(latents, k, slots)  # pyright: ignore[reportCallIssue]
    objective = objectives.matryoshka(lengths, auxk=auxk)
    return _fixed(event, code, objective, Training(steps, learning_rate))


def relu(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of ReLU with an L1 penalty and atoms of norm 1 (Bricken et al. 2023).

    Dead latents are not resampled. At few active latents it explains far less than other codes,
    because the penalty that makes the code sparse also shrinks it; `annealed` and `gated` were made
    against that.
    """
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("relu", losses.l1, l0, weight))
    return _unit(event, ReLU(latents, **training.steered(l0)), objective, training)


def april(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of ReLU with L1 weighted by the norms of free atoms (Conerly et al. 2024).

    As in `relu`, the penalty shrinks the code.
    """
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("april", losses.weighted_l1, l0, weight))
    code = ReLU(latents, **training.steered(l0))
    return recipe(code, Dictionary(event), objective, training, [tied])


def annealed(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of the penalty sum z^p, p falling from 1 to 0.2 (Karvonen et al. 2024).

    Args:
      steps: the number of training steps, of which each stage takes an eighth, but the first a
        quarter; None: 500 steps a stage, but the first 1,000.
    """
    training = Training(steps, learning_rate)
    stage = 500 if steps is None else max(steps // 8, 1)
    code = AnnealedReLU(latents, begin=2 * stage, every=stage, **training.steered(l0))
    objective = merge(sparse(), sparsity("annealed", losses.lp, l0, weight))
    return _unit(event, code, objective, training)


def gated(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of Gated, with an L1 penalty on the gate (Rajamanoharan et al. 2024).

    The penalty has the fixed weight `weight`, or a weight that is adjusted until `l0` latents are
    active on average; give one of the two.
    """
    training = Training(steps, learning_rate)
    gate: Objective = {"gate": (1.0, losses.gate_error())}
    objective = merge(sparse(), gate, sparsity("gated", losses.gate_l1(), l0, weight))
    return _unit(event, Gated(latents, **training.steered(l0)), objective, training)


def jumprelu(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of JumpReLU, with a penalty on L0 (Rajamanoharan et al. 2024).

    Thresholds start at 1, with gradients from pre-activations in a window of width 0.5 around them,
    and atoms start at norm 1. Pre-activations then start at about their final size, and some of
    each batch are in the window. The paper's thresholds and window of 1e-3 suit runs of hundreds of
    thousands of steps.
    """
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("jumprelu", losses.l0, l0, weight))
    code = _jumping(latents, l0, training)
    return recipe(code, Dictionary(event, norm=1.0), objective, training, [tied])


def transcoder(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of a JumpReLU transcoder (Dunefsky et al. 2024).

    It encodes one layer and explains another; it is trained on batches `Batch(x, target)`. Its
    atoms start at norm 0.1: unlike those of an autoencoder they have no relation to the encoder, so
    that with larger ones the first thing to be learned is to be silent, and many latents die.
    """
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("transcoder", losses.l0, l0, weight))
    code = _jumping(latents, l0, training)
    return recipe(code, Dictionary(event), objective, training, [])


def skip_transcoder(
    event: Event,
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of a transcoder plus a linear map from the input (Paulo et al. 2025).

    It is trained on batches `Batch(x, target, context=x)`. Its atoms start as a transcoder's.
    """
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("skip_transcoder", losses.l0, l0, weight))
    dictionary = Dictionary(event, skip=Scale())
    return recipe(_jumping(latents, l0, training), dictionary, objective, training, [])


def crosscoder(
    event: Sequence[int],
    latents: int,
    l0: Any = None,
    weight: Any = None,
    steps: int | None = None,
    learning_rate: Any = None,
) -> Recipe:
    """Returns the recipe of one JumpReLU code that explains several layers (Lindsey et al. 2024).

    The paper's code is a ReLU with an L1 penalty (`ae.objectives.crosscoder`), which explains far
    less at few active latents. Each layer is scaled separately, so that no layer is neglected
    because its activations are small.

    Args:
      event: (layers, size), the shape of one example.

    Raises:
      UserError: if the event has another number of axes than two.
    """
    if isinstance(event, int) or len(event) != 2:
        raise UserError(f"the recipe crosscoder was given the event {event}: give (layers, size)")
    training = Training(steps, learning_rate)
    objective = merge(sparse(), sparsity("crosscoder", losses.l0, l0, weight))
    start = [layered(event[0] ** -0.5), tied]
    dictionary = Dictionary(event, norm=1.0)
    return recipe(_jumping(latents, l0, training), dictionary, objective, training, start)


def _jumping(latents: int, l0: Any, training: Training) -> JumpReLU:
    return JumpReLU(latents, threshold=1.0, bandwidth=0.5, **training.steered(l0))


def _fixed(event: Event, code: Any, objective: Objective, training: Training) -> Recipe:
    """Builds the recipe of a code with a fixed number of active latents and atoms of any norm."""
    return recipe(code, Dictionary(event), objective, training, [tied])


def _unit(event: Event, code: Any, objective: Objective, training: Training) -> Recipe:
    """Builds the recipe of a code whose atoms are kept at norm 1."""
    dictionary = Dictionary(event, norm=1.0)
    return recipe(code, dictionary, objective, training, [tied, quiet], unit=True)
