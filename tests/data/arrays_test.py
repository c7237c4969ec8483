"""Tests of a user's own arrays: their values, their division, and what is refused."""

import numpy as np
import pytest

import aejax as ae
from aejax.data import arrays, changed, changes, source, splits, statistics, table
from aejax.errors import UserError


def test_every_example_is_in_one_part():
    """x and y stay together. Fails if parts overlap, or if y is permuted differently."""
    x = np.arange(100.0)[:, None]
    parts = arrays(x, np.arange(100))
    assert [len(part) for part in parts] == [80, 10, 10]
    for part in parts:
        np.testing.assert_array_equal(part.arrays["x"][:, 0], part.labels)
        assert part.arrays["x"].dtype == np.float32
        assert part.prepare(None, part.arrays).x.dtype == np.float32
    seen = np.concatenate([part.labels for part in parts])
    np.testing.assert_array_equal(np.sort(seen), np.arange(100))


def test_division_is_seeded():
    """Fails if the seed is not used, or if the division is not the same each time."""
    x = np.arange(100.0)[:, None]
    first, again, other = (arrays(x, seed=seed)[2].arrays["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_numbers_of_examples_in_the_place_of_shares():
    parts = arrays(np.zeros((50, 2)), validation=7, test=0.5)
    assert [len(part) for part in parts] == [18, 7, 25]


def test_values_pass_unchanged():
    """bfloat16 and integers are kept as they are. Fails if they are scaled."""
    import jax.numpy as jnp

    x = jnp.linspace(-3, 700, 20, dtype=jnp.bfloat16)[:, None]
    train = arrays(x, validation=1, test=1)[0]
    assert set(train.arrays["x"][:, 0]) <= set(np.asarray(x, np.float32)[:, 0])
    levels = np.arange(20, dtype=np.uint8)[:, None] * 12
    train = arrays(levels, validation=1, test=1)[0]
    np.testing.assert_array_equal(train.prepare(None, train.arrays).x, train.arrays["x"])


X = np.full((20, 3), 0.5)


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (X, {"y": np.where(np.arange(20) == 7, np.nan, 1.0)}, "row 7 of y is missing"),
        (
            np.where(np.arange(60).reshape(20, 3) == 22, np.inf, X),
            {},
            "row 7 of x holds an infinity",
        ),
        (X * 4, {"binarise": "dynamic"}, r"row 0 of x holds 2, .* outside \[0, 1\]"),
        (X - 1, {"binarise": "static"}, r"row 0 of x holds -0.5, .*outside"),
        (X, {"y": np.zeros(19)}, "x has 20 examples, but y has 19"),
        (X, {"y": [b"a"] * 20}, "y has dtype"),
        (X[:, 0], {}, r"x has shape \(20,\)"),
        (X[:3], {}, "3 examples, too few"),
        (X, {"validation": 10, "test": 10}, "the rest to train"),
        (X, {"test": -0.2}, "-4 to test"),
        (np.zeros((20, 3, 32, 32)), {}, "looks like pictures with the 3 channels first"),
        (X, {"weights": 3.0 - np.arange(20)}, "row 4 of weights is -1: give .* 0 or more"),
        (X, {"validation": 1.5}, "validation is 1.5: give a share below 1, or a whole number"),
        (X, {"groups": np.where(np.arange(20) == 3, np.nan, 1.0)}, "row 3 of groups is missing"),
        (X, {"groups": ["a", None] * 10}, "row 1 of groups is missing"),
        (X, {"context": np.arange(20) * 5000}, "holds the class 95000, too large for one-hot"),
        (X, {"context": np.arange(20) - 1}, "context holds the class -1"),
        (X, {"order": "time", "groups": np.arange(20)}, "in order and by groups"),
    ],
)
def test_refused_in_one_sentence(x, options, says):
    """Fails if one of the checks is left out."""
    with pytest.raises(UserError, match=says) as raised:
        arrays(x, **options)
    assert "\n" not in str(raised.value)


def batch_of(split):
    return next(split.batches(len(split)))


def test_integers_stay_integers(capsys):
    """Categorical reads them; pictures of bytes are scaled. Fails if all become f32."""
    x = np.arange(60).reshape(20, 3) % 4
    train = arrays(x)[0]
    assert batch_of(train).target.dtype == np.int32
    pictures = np.full((20, 4, 4), 255, np.uint8)
    assert capsys.readouterr().err == ""
    for shape in ((20, 4, 4), (20, 4, 4, 1)):
        train = arrays(pictures.reshape(shape))[0]
        batch = batch_of(train)
        assert batch.x.dtype == np.float32
        assert batch.x.max() == 1.0
        assert train.provenance()["divided_by"] == 255
        assert "divided by 255: give scale=1.0 to keep" in capsys.readouterr().err
    kept = batch_of(arrays(pictures, scale=1.0)[0])
    assert kept.x.dtype == np.int32
    assert capsys.readouterr().err == ""


def test_what_is_missing_has_mask_0():
    """A numpy.ma mask and NaN; fails if the numbers beneath the mask are trained on."""
    x = np.arange(60.0).reshape(20, 3)
    masked = np.ma.MaskedArray(x.copy(), x == 7)
    masked[1, 0] = np.nan
    parts = arrays(masked, validation=0, test=0)
    batch = batch_of(parts[0])
    wanted = np.ones((20, 3))
    wanted[2, 1] = wanted[1, 0] = 0
    np.testing.assert_array_equal(batch.mask, wanted)
    mean = (x * wanted).sum(0) / wanted.sum(0)
    np.testing.assert_allclose(batch.x, np.where(wanted == 1, x, mean), rtol=1e-6)
    assert arrays(x)[0].prepare.mask is None


def test_channels_first_are_turned_when_asked():
    x = np.random.default_rng(0).normal(size=(20, 3, 8, 5)).astype(np.float32)
    train = arrays(x, channels="first", validation=0, test=0)[0]
    np.testing.assert_array_equal(batch_of(train).x, np.moveaxis(x, 1, -1))


def test_splits_in_time_order_and_by_group():
    x = np.arange(40.0)[:, None]
    train, validation, test = arrays(x, order="time", validation=6, test=4)
    assert batch_of(train).x[-1] == 29
    assert batch_of(validation).x[-1] == 35
    assert batch_of(test).x[0] == 36
    groups = np.repeat(list("abcdefgh"), 5)
    parts = arrays(x, groups=groups, validation=5, test=5)
    found = [set(np.asarray(batch_of(part).x)[:, 0] // 5) for part in parts]
    assert sorted(len(one) for one in found) == [1, 1, 6]
    assert set.union(*found) == set(range(8))


def test_given_splits_are_taken_as_they_are():
    x = np.arange(40.0)[:, None]
    train, validation, test = splits((x, np.arange(40)), test=(x + 100, np.zeros(40, int)))
    assert [len(part) for part in (train, validation, test)] == [36, 4, 40]
    assert test.arrays["x"].min() == 100
    alone, none, fixed = splits(x, None, {"x": x[:3]})
    assert (len(alone), len(none), len(fixed)) == (40, 0, 3)
    with pytest.raises(UserError, match="test has the columns"):
        splits(x, None, (x, np.zeros(40, int)))
    with pytest.raises(UserError, match=r"train is a mapping of \['image'\]"):
        splits({"image": x})


def test_a_split_that_was_not_asked_for_has_no_examples():
    """It has a shape, and whoever reads examples from it is told. Fails if it is None."""
    x = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    given = [
        arrays(x, np.arange(20), validation=0, binarise="dynamic"),
        splits({"x": x, "context": np.arange(20) % 2}, None),
        source(Rows(20, batched=False)),
    ]
    for _, none, _ in given:
        assert (len(none), none.event, len(none.fingerprint)) == (0, (3,), 64)
        for read in (lambda s: next(s.batches(8)), lambda s: ae.data.Batches(s, 8)):
            with pytest.raises(UserError, match=r"/validation has no .* as validation="):
                read(none)


def test_contexts_of_classes_and_covariates():
    """Classes are one-hot over all splits, floats stay; fails if a class is read as a magnitude."""
    x, dose = np.zeros((20, 2)), np.linspace(0, 1, 20)
    train = arrays(x, context={"site": np.arange(20) % 3, "dose": dose}, validation=0, test=0)[0]
    context = batch_of(train).context
    assert context.shape == (20, 4)
    np.testing.assert_array_equal(context[:, :3], np.eye(3)[np.arange(20) % 3])
    np.testing.assert_allclose(context[:, 3], dose, rtol=1e-6)


@pytest.mark.parametrize("labels", [[-1, 0], [0.5, 1], [0, 3], [[0], [1]]])
def test_labels_are_checked(labels):
    """Fails if -1 becomes an all-zero context."""
    y = np.repeat(np.asarray(labels), 10, axis=0)
    with pytest.raises(UserError, match="class"):
        changed(arrays(np.zeros((20, 2)), y)[0], changes.Labels(3))


class Frame(dict):
    """What a data frame of pandas or polars gives: columns by name."""

    columns = property(list)


def test_a_table_by_column_names():
    random = np.random.default_rng(0)
    frame = Frame(
        age=random.normal(50, 10, 40), dose=random.normal(0, 100, 40), site=np.arange(40) % 2
    )
    frame["age"][3] = np.nan
    train, _, _ = table(frame, ["age", "dose"], context=["site"], validation=0, test=0)
    batch = batch_of(train)
    assert batch.x.shape == batch.context.shape == (40, 2)
    assert batch.mask[3].tolist() == [0, 1]
    mean, std = statistics(train)
    seen = frame["age"][~np.isnan(frame["age"])]
    np.testing.assert_allclose(mean, [seen.mean(), frame["dose"].mean()], rtol=1e-5)
    np.testing.assert_allclose(std, [seen.std(), frame["dose"].std()], rtol=1e-5)
    with pytest.raises(UserError, match="no column 'weight': choose from age, dose, site"):
        table(frame, ["weight"])


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_table_of_a_data_frame(package):
    """Integers, nulls, booleans and names of groups of the real packages, where they are installed.

    Fails if a null is read as a number, or if the error of the package reaches the user.
    """
    frames = pytest.importorskip(package)
    missing = [i % 4 == 1 for i in range(20)]
    columns = {
        "age": [None if gone else 20 + i for i, gone in enumerate(missing)],
        "dose": np.linspace(-5.0, 5.0, 20),
        "smokes": [i % 2 == 0 for i in range(20)],
        "site": [i % 3 for i in range(20)],
        "patient": [f"patient {i // 2}" for i in range(20)],
    }
    frame = frames.DataFrame(columns)
    names = ["age", "dose", "smokes"]
    train, validation, test = table(
        frame, names, y="site", context=["site", "dose"], groups="patient", validation=4, test=4
    )
    assert [len(part) for part in (train, validation, test)] == [12, 4, 4]
    found = [batch_of(part) for part in (train, validation, test)]
    x, mask, context = (
        np.concatenate([np.asarray(getattr(batch, name)) for batch in found])
        for name in ("x", "mask", "context")
    )
    row = np.round((x[:, 1] + 5.0) * 1.9).astype(int)  # the number of each example in the frame
    assert sorted(row) == list(range(20))
    np.testing.assert_array_equal(mask[:, 0], 1 - np.asarray(missing)[row])
    np.testing.assert_array_equal(x[mask[:, 0] == 1, 0], 20 + row[mask[:, 0] == 1])
    np.testing.assert_array_equal(x[:, 2], row % 2 == 0)
    np.testing.assert_array_equal(context[:, :3], np.eye(3)[row % 3])
    patients = [set(part // 2) for part in np.split(row, [12, 16])]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    with pytest.raises(UserError, match="no column 'weight'"):
        table(frame, ["weight"])
    with pytest.raises(UserError, match=r"patient has dtype .*: give .* numbers .*categories"):
        table(frame, ["patient"])


class Rows:
    """A data set in PyTorch's form, which counts its calls."""

    def __init__(self, n, batched):
        self.n, self.calls = n, 0
        if batched:
            self.__class__ = BatchedRows

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.calls += 1
        return np.full(3, i, np.float32), i % 2


class BatchedRows(Rows):
    def __getitems__(self, indices):
        self.calls += 1
        return [(np.full(3, i, np.float32), i % 2) for i in indices]


@pytest.mark.parametrize("batched", [False, True])
def test_a_data_set_of_another_library(batched):
    """The batches are those of arrays with the same rows. Fails if batched reads lose the order."""
    data = Rows(50, batched)
    train, validation, test = source(data, validation=0.2, test=Rows(7, batched))
    assert [len(part) for part in (train, validation, test)] == [40, 10, 7]
    rows = np.asarray(batch_of(train).x)[:, 0]
    same = splits(rows[:, None] * np.ones((1, 3), np.float32), None)[0]
    ours, theirs = ae.data.Batches(train, 8, seed=3), ae.data.Batches(same, 8, seed=3)
    for t in (0, 7):
        np.testing.assert_array_equal(ours[t].x, theirs[t].x)
    data.calls = 0
    chunk = ours.source(0, 5, limit=5)
    assert chunk.arrays["x"].shape == (5, 8, 3)
    assert data.calls == (5 if batched else 40)
    np.testing.assert_array_equal(chunk.arrays["x"][4], theirs[4].x)
    with pytest.raises(UserError, match="no 'image'"):
        source(data, field="image")
    with pytest.raises(UserError, match="generator, which has no length"):
        source(i for i in range(3))


def test_a_stream_gives_its_examples_in_order(capsys):
    """Over the end of a pass, in chunks and alone, and again from the front after a resume."""
    rows = [(np.full(2, i, np.float32), i) for i in range(7)]
    batches = ae.data.Stream(lambda: iter(rows), length=7, size=3)
    found = [np.asarray(batches.source(t, 2, limit=6).arrays["x"])[..., 0] for t in (0, 2)]
    np.testing.assert_array_equal(np.ravel(found), np.arange(12) % 7)
    assert capsys.readouterr().err == ""
    again = ae.data.Stream(lambda: iter(rows), length=7, size=3)
    np.testing.assert_array_equal(again[2].x[:, 0], [6, 0, 1])
    assert "reading 6 examples again" in capsys.readouterr().err
    assert again.steps(3) == 7
    assert again.epoch(7) == 3.0
    with pytest.raises(UserError, match="the stream ended after 7 examples"):
        ae.data.Stream(lambda: iter(rows), length=8, size=8)[0]
    with pytest.raises(UserError, match="can be read only once"):
        ae.data.Stream(iter(rows), length=7, size=3)


def test_nan_of_a_data_set_that_is_read_is_missing_when_asked():
    """The batch, and the statistics, are those of the same array. Text of an example is left out.

    Fails if a missing value is trained on, or counts in the mean.
    """
    x = np.arange(12.0).reshape(6, 2)
    x[4, 1] = np.nan
    given = source([(row, "text") for row in x])[0]
    train = changed(given, changes.Missing(np.nan))
    known, right = statistics(train), statistics(splits(x, None)[0])
    np.testing.assert_allclose([known.mean, known.std], [right.mean, right.std])
    np.testing.assert_allclose(known.mean, [5.0, (1 + 3 + 5 + 7 + 11) / 5])
    batch = batch_of(changed(given, changes.Missing(-1.0)))
    missing = np.isnan(x)
    np.testing.assert_array_equal(batch.mask, ~missing)
    np.testing.assert_array_equal(batch.x, np.where(missing, -1.0, x))
    assert np.isfinite(batch.target).all()
    stream = ae.data.Stream(lambda: iter(x), 6, 6, changes=[changes.Missing(-1.0)])
    np.testing.assert_array_equal(stream[0].mask, batch.mask)
    assert np.isnan(batch_of(train).x[4, 1])


def test_labels_may_be_truths():
    train = changed(arrays(X, np.arange(20) % 2 == 0)[0], changes.Labels(2))
    np.testing.assert_array_equal(batch_of(train).context.sum(axis=0), [8, 8])


class Pictures:
    """Bytes with their channels first, as vision libraries store them."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i]


def test_pictures_of_another_library_are_as_in_arrays(capsys):
    """Scale and channels. Fails if 255 reaches a Bernoulli, or if the width becomes channels."""
    x = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    with pytest.raises(UserError, match="3 channels first"):
        source(Pictures(x))
    train = source(Pictures(x), channels="first")[0]
    batch = batch_of(train)
    np.testing.assert_allclose(batch.x, np.moveaxis(x, 1, -1) / 255, rtol=1e-6)
    assert "divided by 255" in capsys.readouterr().err
    ae.data.check_support(train, ae.types.Support(0.0, 1.0))
    kept = source(Pictures(x), channels="first", scale=1.0)[0]
    with pytest.raises(UserError, match=r"source/train holds \d+, outside \[0, 1\]"):
        ae.data.check_support(kept, ae.types.Support(0.0, 1.0))
    batches = ae.data.Stream(lambda: iter(np.moveaxis(x, 1, -1)), length=6, size=2)
    np.testing.assert_allclose(batches[0].x, np.moveaxis(x[:2], 1, -1) / 255, rtol=1e-6)


def test_a_stream_says_when_its_length_is_not_that_of_a_pass(capsys):
    rows = np.zeros((8, 2), np.float32)
    ae.data.Stream(lambda: iter(rows), length=6, size=4)[1]
    assert "more than the 6 examples" in capsys.readouterr().err
    whole = [rows[:4], rows[4:]]
    with pytest.raises(UserError, match=r"after 2 examples, with arrays of shapes .*\(4, 2\)"):
        ae.data.Stream(lambda: iter(whole), length=8, size=4)[0]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: arrays(np.zeros((20, 8, 8, 3)), channels="first"), "3 channels last: leave out"),
        (lambda: arrays({"x": X}), "x is a mapping of x, not an array"),
        (lambda: table({"x": X}, ["x"]), r"the column 'x' has shape \(20, 3\)"),
        (lambda: source({"x": X}), "train is a mapping of x, not a data set"),
        (lambda: arrays([[1, 2], [3]]), "x is a list of parts of unequal shapes"),
        (lambda: splits([X, np.arange(20)]), r"or x and y as a tuple \(x, y\)"),
        (lambda: arrays(X[:0]), r"x has shape \(0, 3\), no examples"),
        (lambda: arrays(X * np.nan), "every value of x is missing"),
        (lambda: source(["a", "b"]), "have the arrays of numbers \\[\\], but no 'x'"),
        (
            lambda: batch_of(source([np.zeros(2 + (i == 3)) for i in range(5)])[0]),
            r"differ in x, whose shapes are \(2,\), \(3,\)",
        ),
        (lambda: ae.data.Stream(lambda: iter(()), 4, 2), "of a stream has no example"),
    ],
)
def test_other_mistakes_are_refused(act, says):
    with pytest.raises(UserError, match=says):
        act()
