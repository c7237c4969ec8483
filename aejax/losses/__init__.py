"""Loss terms: pure functions (bound model, forward) -> f32[B], one value per example.

An objective is a weighted sum of terms. Terms that are summands of log q(z | x) - log p(x, z) are
marked by the decorator `ratio`, so that a bound such as IWAE can combine them over several draws of
z. A term without this mark is a penalty, which is averaged over the draws.
"""

from aejax.losses.adversarial import (
    codes_deceive,
    feature_error,
    latent_critic,
    picture_critic,
    pictures_deceive,
)
from aejax.losses.disentanglement import (
    critic,
    density_ratio,
    dimension_wise_kl,
    dip_i,
    dip_ii,
    mutual_information,
    total_correlation,
)
from aejax.losses.divergence import gaussian_kernel, inverse_multiquadric, mmd
from aejax.losses.frozen import frozen
from aejax.losses.gate import gate_error, gate_l1
from aejax.losses.marks import Mark, mark, ratio
from aejax.losses.matryoshka import fractions, prefix_error
from aejax.losses.pictures import feature_distance, patch_critic, patches_deceive, perceptual
from aejax.losses.quantisation import codes_used, commitment, perplexity
from aejax.losses.rate import capacity, free_bits, kl, rate
from aejax.losses.reconstruction import distortion, squared_error
from aejax.losses.regularised import code_size, decoder_slope
from aejax.losses.revival import auxk, ghost, residual_norm, residual_variance
from aejax.losses.scaled import normalised_error, scaled_error, unexplained
from aejax.losses.semi_supervised import semi_supervised
from aejax.losses.similarity import dissimilarity
from aejax.losses.sparsity import (
    dead,
    gamma,
    l0,
    l1,
    layered_l1,
    lp,
    off_target,
    penalty,
    pre_activation,
    priced,
    quadratic_l0,
    relative_l0,
    tanh_l0,
    weighted_l1,
    window,
)
from aejax.losses.spectral import spectral
from aejax.losses.texts import bag_of_words, mean_distance, word_dropout

__all__ = [
    "Mark",
    "auxk",
    "bag_of_words",
    "capacity",
    "code_size",
    "codes_deceive",
    "codes_used",
    "commitment",
    "critic",
    "dead",
    "decoder_slope",
    "density_ratio",
    "dimension_wise_kl",
    "dip_i",
    "dip_ii",
    "dissimilarity",
    "distortion",
    "feature_distance",
    "feature_error",
    "fractions",
    "free_bits",
    "frozen",
    "gamma",
    "gate_error",
    "gate_l1",
    "gaussian_kernel",
    "ghost",
    "inverse_multiquadric",
    "kl",
    "l0",
    "l1",
    "latent_critic",
    "layered_l1",
    "lp",
    "mark",
    "mean_distance",
    "mmd",
    "mutual_information",
    "normalised_error",
    "off_target",
    "patch_critic",
    "patches_deceive",
    "penalty",
    "perceptual",
    "perplexity",
    "picture_critic",
    "pictures_deceive",
    "pre_activation",
    "prefix_error",
    "priced",
    "quadratic_l0",
    "rate",
    "ratio",
    "relative_l0",
    "residual_norm",
    "residual_variance",
    "scaled_error",
    "semi_supervised",
    "spectral",
    "squared_error",
    "tanh_l0",
    "total_correlation",
    "unexplained",
    "weighted_l1",
    "window",
    "word_dropout",
]
