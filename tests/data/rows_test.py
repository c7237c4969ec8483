"""Tests that new rows are prepared as train was, whatever else is among them."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import aejax as ae

KEY = jax.random.key(0)


def made(n=60):
    """A table whose columns are at 50 and at -3, with a gap in every third row."""
    random = np.random.default_rng(0)
    return {
        "age": np.where(np.arange(n) % 3 == 0, np.nan, random.normal(50, 10, n)),
        "dose": random.normal(-3, 1, n),
        "sex": np.asarray(["m", "f"])[np.arange(n) % 2],
        "site": np.arange(n) % 3,
        "height": random.normal(size=n),
        "outcome": np.asarray(["dead", "alive"])[np.arange(n) // 2 % 2],
    }


FRAME = made()
FRAME_X = ["age", "dose"]
SPLITS = ae.data.table(FRAME, FRAME_X, y="outcome", context=["sex", "site", "height"])
TRAIN = SPLITS[0]


def chosen(frame, rows, names=("age", "dose", "sex", "site", "height")):
    return {name: frame[name][rows] for name in names}


def only(split):
    return next(split.batches(len(split)))


def test_a_row_alone_is_prepared_as_in_train():
    """Fails if a gap is filled with the mean of the call, or classes are counted in it."""
    mask = TRAIN.arrays["mask"][:, 0] == 1
    mean = TRAIN.arrays["x"][mask, 0].astype(np.float64).mean()
    for rows in ([0], [2, 0, 3], list(range(60))):
        new = ae.data.rows(chosen(FRAME, rows), like=TRAIN)
        batch, at = only(new), rows.index(0)
        np.testing.assert_allclose(batch.x[at], [mean, FRAME["dose"][0]], rtol=1e-6)
        assert batch.mask[at].tolist() == [0, 1]
        # f and m, in the order of the alphabet; three sites; the height as it is
        right = [0, 1, 1, 0, 0, FRAME["height"][0]]
        np.testing.assert_allclose(batch.context[at], right, rtol=1e-6)
    complete = only(ae.data.rows(chosen(FRAME, [1]), like=TRAIN))
    assert complete.mask.tolist() == [[1, 1]]


def test_text_is_classes_whose_names_are_kept():
    """Also of a column of pandas' categories, which arrives as objects."""
    assert TRAIN.classes == ("alive", "dead")
    train = ae.data.arrays(np.zeros((4, 2)), FRAME["outcome"][:4], validation=0, test=0)[0]
    assert train.labels.tolist() == [1, 1, 0, 0]
    objects = np.asarray(["b", "a", "b", "c"], object)
    train = ae.data.arrays(np.zeros((4, 2)), context=objects, validation=0, test=0)[0]
    np.testing.assert_array_equal(only(train).context, np.eye(3)[[1, 0, 1, 2]])


def test_a_context_in_the_columns_of_train():
    """Single values are repeated, and the order of the mapping does not matter."""
    given = {"height": 1.5, "site": 2, "sex": ["m", "f"]}
    found = ae.data.context(given, like=TRAIN)
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 1, 1.5], [1, 0, 0, 0, 1, 1.5]])


def other(name, values):
    return {**chosen(FRAME, range(2)), name: np.asarray(values)}


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: ae.data.rows(other("sex", ["m", "x"]), like=TRAIN), "row 1 of context 'sex' is x"),
        (lambda: ae.data.rows(other("site", [0, 3]), like=TRAIN), "'site' is 3, .* from 0 to 2"),
        (lambda: ae.data.rows(other("height", ["a", "b"]), like=TRAIN), "it has 1 covariates"),
        (
            lambda: ae.data.rows(chosen(FRAME, range(2), ["age", "dose", "sex"]), like=TRAIN),
            "no column 'site'",
        ),
        (lambda: ae.data.context({"sex": ["m"]}, like=TRAIN), "has the arrays sex, but train has"),
        (lambda: ae.data.table(FRAME, "crp"), "no column 'crp'"),
        (
            lambda: ae.data.table({"age": np.full(20, np.nan), "dose": np.arange(20.0)}, FRAME_X),
            "the column 'age' has no value in any row of train",
        ),
        (
            lambda: ae.data.rows(np.zeros((2, 3)), like=ae.data.arrays(np.zeros((20, 2)))[0]),
            r"x of shape \(2, 3\), but train has examples of shape \(2,\)",
        ),
        (
            lambda: ae.data.splits({"x": np.zeros((5, 2))}, None, {"x": X, "context": X[:, 0]}),
            "a context is given, but train has none",
        ),
    ],
)
def test_refused_in_one_sentence(act, said):
    with pytest.raises(ae.UserError, match=said) as raised:
        act()
    assert "\n" not in str(raised.value)


X = np.zeros((5, 2))


def test_pictures_and_counts_are_prepared_as_in_train(capsys):
    """The scale, the place of the channels, the kind of numbers, changes and binarisation."""
    pictures = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), np.uint8)
    train = ae.data.arrays(pictures, np.arange(20) % 2, channels="first", binarise="dynamic")[0]
    train = ae.data.changed(train, ae.data.changes.Labels(2))
    new = ae.data.rows((pictures[:2] // 255 * 255, [1, 0]), like=train)
    batch = only(new)
    np.testing.assert_array_equal(batch.x, np.moveaxis(pictures[:2] // 255, 1, -1))
    np.testing.assert_array_equal(batch.context, [[0, 1], [1, 0]])
    counts = ae.data.arrays(np.arange(40).reshape(20, 2))[0]
    assert only(ae.data.rows([[1, 2]], like=counts)).x.dtype == np.int32
    with pytest.raises(ae.UserError, match="but x of train holds integers"):
        ae.data.rows([[1.5, 2.0]], like=counts)
    assert "divided by 255" in capsys.readouterr().err


def test_what_looks_wrong_in_a_context_is_said(capsys):
    ae.data.arrays(np.zeros((40, 2)), context={"age": np.arange(40), "site": np.arange(40) % 3})
    assert "integers of context 'age' are classes from 0 to 39" in capsys.readouterr().err
    ae.data.arrays(np.zeros((40, 2)), context={"age": np.arange(40.0), "site": np.arange(40) % 3})
    assert "context 'age' holds numbers up to 39" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model():
    """A conditional VAE with linear nets, not trained."""
    known = ae.data.statistics(TRAIN)
    model = ae.Autoencoder(
        ae.nets.Standardised(ae.nets.MLP(()), *known),
        ae.Gaussian(2),
        ae.nets.MLP((), shape=2),
        ae.priors.Conditional(()),
        ae.likelihoods.Standardised(ae.likelihoods.LearnedGaussian(start=1.0), *known),
    )
    learner = ae.learner(model, ae.elbo(), optax.sgd(0.1))
    return model, learner.variables(jax.jit(learner.init)(KEY, only(TRAIN)))


def test_nan_is_missing_wherever_it_comes_from(model):
    """The code and error of a row are the same from rows() and from Batches with NaN.

    The likelihood is that of the observed column alone, computed by numpy.
    """
    model, variables = model
    new = ae.data.rows(chosen(FRAME, [0, 1]), like=TRAIN)
    context = ae.data.context(chosen(FRAME, [0, 1], ["sex", "site", "height"]), like=TRAIN)
    x = np.stack([FRAME["age"][:2], FRAME["dose"][:2]], axis=1).astype(np.float32)
    given = [new, ae.Batch(x, x, context), ae.Batch(x, x, context, np.ones((2, 2), np.float32))]
    bound = model.bind(variables)
    codes = [np.asarray(bound.encode(data)) for data in given]
    given.append(ae.data.rows(chosen(FRAME, [0]), like=TRAIN))
    found = [
        ae.evaluation.reconstruction(model, variables, data, batch=1).mean_square for data in given
    ]
    for code, error in zip(codes[1:], found[1:], strict=False):
        np.testing.assert_allclose(code, codes[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(error, found[0], rtol=1e-4)
    np.testing.assert_allclose(found[3][0], found[0][0], rtol=1e-5)  # alone and beside another
    prediction = np.asarray(bound.decode(codes[0], context))[0]
    mean, std = (np.asarray(one)[1] for one in ae.data.statistics(TRAIN))
    standard = (x[0, 1] - mean) / std - prediction[1]
    right = -0.5 * standard**2 - 0.5 * np.log(2 * np.pi) - np.log(std)
    batch = ae.Batch(x[:1], x[:1], context[:1])
    forward = bound(batch)
    np.testing.assert_allclose(-ae.losses.distortion(bound, forward)[0], right, rtol=1e-4)


def test_an_encoder_that_cannot_read_nan_is_named():
    """Fails if NaN comes out without a word; an evaluation names the row in the whole data."""
    x = np.zeros((5, 2), np.float32)
    x[3, 1] = np.nan
    model = ae.Autoencoder(ae.nets.MLP(()), ae.Point(1), ae.nets.MLP((), shape=2))
    variables = jax.jit(model.init)(KEY, X)
    with pytest.raises(ae.UserError, match=r"row 3 of x holds NaN, .* the encoder MLP returns"):
        model.bind(variables).encode(x)
    with pytest.raises(ae.UserError, match=r"row 3 of x holds NaN, .*rows\(new, like=train\)"):
        ae.evaluation.reconstruction(model, variables, x, batch=2)


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (None, "Conditional needs a context with 4 rows, .* but none is given"),
        (np.zeros(6, np.float32), r"asked for 4 latents with a context of shape \(6,\)"),
        (
            np.zeros((4, 5), np.float32),
            r"the prior Conditional was called with a context of \(4, 5",
        ),
    ],
)
def test_a_wrong_context_of_draws_is_named(model, context, said):
    with pytest.raises(ae.UserError, match=said):
        model[0].bind(model[1]).sample(KEY, 4, context)


def test_messages_of_a_conditional_model(model):
    model, variables = model
    bound = model.bind(variables)
    with pytest.raises(ae.UserError, match="give the context, of 6 columns, if the model was init"):
        bound.encode(X)
    with pytest.raises(ae.UserError, match=r"statistics of shape \(2,\): give \[N, 2\]"):
        bound.encode(np.zeros((5, 3)))


class Counts(ae.likelihoods.Gaussian):
    """Accepts whole numbers from 0 on; its density is of no interest here."""

    support = ae.types.Support(0.0, np.inf, whole=True)


def test_counts_are_whole_where_they_are_seen():
    """Fails if 0.5 is accepted, or if the mean that fills a gap is taken for a count."""
    counts = np.asarray([[0, 1], [np.nan, 2], [3, 4], [4, 4.0]])
    model = ae.Autoencoder(
        ae.nets.MLP(()), ae.Gaussian(1), ae.nets.MLP((), shape=2), ae.priors.Standard(), Counts()
    )
    learner = ae.learner(model, ae.elbo(), optax.sgd(1e-3))
    train = ae.data.splits(counts, None)[0]
    ae.data.check_support(train, learner.support)
    ae.loop(learner, None, ae.data.Batches(train, 2), 1)  # checks before the first step
    counts[2, 1] = 0.5
    said = "example 2.* holds 0.5, but the likelihood is defined for whole numbers"
    with pytest.raises(ae.UserError, match=said):
        ae.evaluation.elbo(model, {}, np.nan_to_num(counts), KEY)
    with pytest.raises(ae.UserError, match=said):
        next(ae.loop(learner, None, ae.data.Batches(ae.data.splits(counts, None)[0], 2), 1))
    with pytest.raises(ae.UserError, match="Standardised was given Counts, which is defined for"):
        ae.likelihoods.Standardised(Counts(), 0.0, 1.0)


def test_a_term_before_its_weight_is_refused():
    model = ae.Autoencoder(ae.nets.MLP(()), ae.Point(1), ae.nets.MLP((), shape=2))
    with pytest.raises(ae.UserError, match=r"'error' .* give \(weight, term\), in this order"):
        ae.learner(model, {"error": (ae.losses.squared_error, 1.0)}, optax.sgd(0.1))


def test_means_by_weight():
    found = ae.evaluation.Nll(np.asarray([1.0, 2.0, 6.0]), np.ones(3))
    assert ae.evaluation.means(found, weights=[2, 1, 1])["nll"] == 2.5
