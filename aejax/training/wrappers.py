"""Wrappers: functions from a learner (the functions that train a model) to a changed learner.

    averaged(learner, 0.999)      evaluates a moving average of the weights
    restarted(learner, 500)       gives some parts new parameters after 500 steps
    chunked(learner, 500)         does up to 500 training steps per call of `step`
    seeds(learner, 5)             trains five models with different seeds in one program
    swept(build, settings)        trains models with different settings, such as learning rates
    compiled(learner, mesh)       compiles the learner's functions, and divides batches over the
                                  devices of a mesh; it is defined in aejax.training.compiled

Wrappers can be nested. Each of several models that are trained together is called a member.
`seeds(chunked(learner))` and `chunked(seeds(learner))` compute the same; the former is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import at_least, check_is_key, check_not_rbg
from aejax.errors import UserError
from aejax.training.gathering import gathered
from aejax.types import Array, Batch, Key, Learner, Metrics, Source, State, Variables


def averaged(learner: Learner, decay: float = 0.999) -> Learner:
    """Returns a learner that also keeps an exponential moving average of the parameters.

    `variables` returns the average, so evaluation and export use it; training is unchanged. The
    decay at step t is min(decay, (1 + t) / (10 + t)), so that the initial weights are soon
    forgotten.

    Args:
      learner: a learner whose calls of `step` do one training step, that is, before `chunked`.
      decay: the decay of the average per step, 0 <= decay < 1.

    Raises:
      UserError: if the learner is chunked, which hides the single steps, or decay is out of range.
    """
    if learner.chunk is not None:
        raise UserError(
            "averaged cannot wrap a chunked learner, which hides the single steps: write "
            "chunked(averaged(learner)) instead"
        )
    if not 0.0 <= decay < 1.0:
        raise UserError(f"decay is {decay}, but a moving average needs 0 <= decay < 1")

    def init(key: Key, batch: Batch) -> State:
        state = learner.init(key, batch)
        return state._replace(opt=(state.opt, state.params))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        inner, average = state.opt  # pyright: ignore[reportGeneralTypeIssues]
        new, metrics = learner.step(state._replace(opt=inner), batch)
        t = state.step.astype(jnp.float32)
        rate = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
        average = jax.tree.map(lambda a, p: rate * a + (1.0 - rate) * p, average, new.params)
        return new._replace(opt=(new.opt, average)), metrics

    def variables(state: State) -> Variables:
        inner, average = state.opt  # pyright: ignore[reportGeneralTypeIssues]
        return {**learner.variables(state._replace(opt=inner)), "params": average}

    return learner._replace(init=init, step=step, variables=variables)


def restarted(
    learner: Learner, after: int, parts: Collection[str] = ("decoder", "likelihood")
) -> Learner:
    """Returns a learner that gives some parts of the model new parameters after some steps.

    An encoder that was trained as that of a standard autoencoder thus starts with a new decoder,
    which has not yet learnt to ignore the code (Li et al. 2019, section 3). The optimiser's state
    starts anew too, for all parts.

    Args:
      learner: a learner whose calls of `step` do one training step, that is, before `chunked`.
      after: the number of steps before the restart; schedules of the objective are not affected.
      parts: the names of the parts.

    Raises:
      UserError: if the learner is chunked, or `after` is below 1.
    """
    if learner.chunk is not None:
        raise UserError(
            "restarted cannot wrap a chunked learner, which hides the single steps: write "
            "chunked(restarted(learner, after)) instead"
        )
    at_least(1, "after", after)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        def anew(state: State) -> State:
            fresh = learner.init(jax.random.fold_in(state.key, after), batch)
            params = {k: fresh.params[k] if k in parts else v for k, v in state.params.items()}
            return state._replace(params=params, opt=fresh.opt)

        return learner.step(jax.lax.cond(state.step == after, anew, lambda s: s, state), batch)

    return learner._replace(step=step)


def successors(key: Key, n: int) -> Key:
    """Returns the keys of n successive seeds, Key[n]: for key(s), key(s), key(s + 1), ...

    Raises:
      UserError: if the key is of the rbg implementation, for which vmap would use only the first
        key.
    """
    check_not_rbg(key, "rbg keys give all seeds the same noise under vmap: use threefry keys")
    data = jax.random.key_data(key)
    counted = jnp.tile(data[None], (n, 1)).at[:, -1].add(jnp.arange(n, dtype=data.dtype))
    return jax.random.wrap_key_data(counted, impl=jax.random.key_impl(key))


def seeds(learner: Learner, n: int, shared_data: bool = False) -> Learner:
    """Returns a learner that trains n models with different seeds, the members, in one program.

    Every field of the State except `step` gets a leading axis S = n. Member i of a run with seed s
    equals, up to rounding, a single run with seed s + i, including the order of its data. `init`
    takes either one key, jax.random.key(s), and one batch; or keys Key[S] and a batch whose leaves
    have a leading axis S.

    Args:
      learner: the learner of one member, chunked or not.
      n: S, the number of members.
      shared_data: whether all members see the same batches, which then have no leading axis S.

    Raises:
      UserError: if n < 1, or if the learner already trains several members.
    """
    if n < 1:
        raise UserError(f"seeds is {n}, but at least one model must be trained: set seeds >= 1")
    return _side_by_side(lambda _: learner, None, n, shared_data, _members)


def swept(build: Callable[[Any], Learner], settings: Any, shared_data: bool = True) -> Learner:
    """Returns a learner that trains one model for each setting, the members, in one program.

    Member i equals, up to rounding, a model trained by the learner build(setting i). Settings may
    differ in numbers that do not change the shape of an array: the weight of a term, a learning
    rate, `TopK.active`, `BatchTopK.k`, or a bottleneck's target `l0`.

        settings = {"l1": jnp.geomspace(0.1, 10.0, 8)}
        learner = swept(lambda s: ae.learner(model, ae.sparse(l1=s["l1"]), tx), settings)

    `init` takes one key jax.random.key(s), from which member i gets jax.random.key(s + i), or keys
    Key[S], which may repeat.

    Args:
      build: a function from one setting, with leaves [], to the learner of one member, chunked or
        not.
      settings: a pytree of numbers with leaves [S].
      shared_data: whether all members see the same batches; if False, each has its own, as in
        `seeds`.

    Raises:
      UserError: if the settings are not arrays of one common length S, or if the built learner has
        seeds already. `init` raises it if a setting determines the shape of an array.
    """
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(settings)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise UserError(
            f"the arrays in settings have leading shapes {sorted(sizes)}: give all the same length,"
            " with one value for each member"
        )
    settings = jax.tree.map(jnp.asarray, settings)
    learner = _side_by_side(build, settings, sizes.pop()[0], shared_data, _by_platform)

    def init(key: Key, batch: Batch) -> State:
        try:
            return learner.init(key, batch)
        except _CONCRETE as error:
            raise UserError(
                "a setting of this sweep determines the shape of an array, or is otherwise needed "
                "as a Python number, which one program cannot vary: sweep numbers such as "
                "TopK.active, BatchTopK.k with slots, l0 or a learning rate"
            ) from error

    return learner._replace(init=init)


# What JAX raises if a traced value is used as a Python number.
_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _side_by_side(
    build: Callable[[Any], Learner],
    settings: Any,
    n: int,
    shared_data: bool,
    mapped: Callable[..., Any],
) -> Learner:
    """Returns a learner that trains n models, the members, each with its own setting.

    Args:
      build: a function from one setting to the learner of one member, called while jax traces.
      settings: a pytree of numbers with leaves [n].
      n: the number of members.
      shared_data: whether all members see the same batches.
      mapped: `_members` or `_by_platform`, which turns the step of one member into that of all.
    """
    first = build(jax.tree.map(lambda a: a[0], settings))
    if first.seeds is not None:
        raise UserError(
            "this learner has seeds already: wrap it once, with the product of the two numbers"
        )
    state_axes: Any = State(step=None, key=0, params=0, memory=0, opt=0)  # type: ignore[arg-type]

    def init(key: Key, batch: Batch) -> State:
        check_is_key(key)
        stacked = key.ndim == 1
        keys = key if stacked else successors(key, n)
        axes = (0, 0, 0 if stacked and not shared_data else None)
        call = _members(lambda one, key, batch: build(one).init(key, batch), n, axes, state_axes)
        try:
            return call(settings, keys, batch)
        except UserError as error:
            if stacked or jnp.shape(batch.target)[:1] != (n,):
                raise
            raise UserError(
                f"{error} (the batch has a first axis of {n}, as many as there are seeds: if it "
                f"comes from Batches(..., seeds={n}), give init one key and a batch of "
                f"Batches(...) without seeds, or {n} keys with this batch)"
            ) from error

    def step(state: State, data: Batch | Source) -> tuple[State, Metrics]:
        axes = (0, state_axes, _data_axes(data, shared_data))
        call = mapped(
            lambda one, state, data: build(one).step(state, data), n, axes, (state_axes, 0)
        )
        return call(settings, state, data)

    def variables(state: State) -> Variables:
        call = _members(lambda one, state: build(one).variables(state), n, (0, state_axes), 0)
        return call(settings, state)

    def evaluate(variables: Variables, batch: Batch, key: Key, step: Array) -> Metrics:
        # Members are evaluated one after another, so that memory for one is enough.
        def one(member: Any) -> Metrics:
            return build(member[0]).evaluate(member[1], batch, key, step)

        return jax.lax.map(one, (settings, variables))

    return Learner(
        init,
        step,
        variables,
        evaluate,
        seeds=n,
        chunk=first.chunk,
        shared_data=shared_data,
        support=first.support,
        subtracts_bias=first.subtracts_bias,
    )


def _members(function: Callable[..., Any], n: int, in_axes: Any, out_axes: Any) -> Any:
    """Returns a function of n members, made from the function of one member by vmap.

    For n = 1 vmap is not used: the axis of the members is only removed and added again.

    On CPUs, a batched matrix product of one member runs at three quarters of the speed of an
    unbatched one.
    """
    if n > 1:
        return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

    def single(*arguments: Any) -> Any:
        result = function(*_along(in_axes, lambda a: a[0], arguments))
        return _along(out_axes, lambda a: a[None], result)

    return single


def _by_platform(function: Callable[..., Any], n: int, in_axes: Any, out_axes: Any) -> Any:
    """Returns a function of n members as `_members` does, but one that is sequential on CPUs.

    On CPUs 8 sparse dictionaries under vmap take as long as 11 single ones, measured on 2 cores at
    d 64 to 256, m 512 to 2048 and batches of 512 to 1024 (experiment sae-sweep). Models with small
    matrix products are faster under vmap on CPUs too, so `seeds` uses it everywhere.
    """
    if n == 1:
        return _members(function, n, in_axes, out_axes)

    def in_turn(*arguments: Any) -> Any:
        def one(i: Array) -> Any:
            return function(*_along(in_axes, lambda a: a[i], arguments))

        return _along(out_axes, lambda a: a, jax.lax.map(one, jnp.arange(n)), lambda a: a[0])

    together = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

    def call(*arguments: Any) -> Any:
        return jax.lax.platform_dependent(*arguments, cpu=in_turn, default=together)

    return call


def _along(axes: Any, change: Callable, tree: Any, rest: Callable = lambda a: a) -> Any:
    """Applies `change` to the leaves whose axis in `axes` is not None, and `rest` to the others."""

    def one(axis: int | None, part: Any) -> Any:
        return jax.tree.map(rest if axis is None else change, part)

    return jax.tree.map(one, axes, tree, is_leaf=lambda axis: axis is None)


def _data_axes(data: Batch | Source, shared: bool) -> Any:
    """Returns the argument in_axes of vmap for a batch or a source.

    The leaves of a batch or source have a leading axis S, unless all members share the data. But
    in a source that holds a whole data set, only rows and key have it.
    """
    if shared or not isinstance(data, Source):
        return None if shared else 0
    members = 0 if data.rows is None else None
    leaves, tree = jax.tree.flatten(data)
    axes = jax.tree.unflatten(tree, [members] * len(leaves))
    rows = None if data.rows is None else 0
    return Source(axes.arrays, rows, 0, None, data.prepare, None)  # type: ignore[arg-type]


def chunked(learner: Learner, t: int) -> Learner:
    """Returns a learner whose calls step(state, source) do up to t training steps each.

    The batches are gathered on the device. One compiled program does any number of steps up to t,
    so results are bitwise the same however the steps are divided into calls. The metrics are
    f32[T], or f32[S, T] with seeds; entries `source.first` to `source.first + source.count - 1` are
    set, and all others are zero.

    Args:
      learner: a learner whose calls of `step` do one training step each.
      t: T, the largest number of steps of one call.

    Raises:
      UserError: if t < 1, or if the learner is chunked already.
    """
    if t < 1:
        raise UserError(f"chunk is {t}, but a call must do at least one step: set chunk >= 1")
    if learner.chunk is not None:
        raise UserError("this learner is chunked already: apply chunked once, with the larger size")

    def step(state: State, source: Source) -> tuple[State, Metrics]:
        def one(state: State, i: Array) -> tuple[State, Metrics]:
            return learner.step(state, gathered(source, i, state.step))

        shapes = jax.eval_shape(one, state, jnp.zeros((), jnp.int32))[1]
        empty = jax.tree.map(lambda a: jnp.zeros((*a.shape, t), a.dtype), shapes)

        def body(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, metrics = carry
            state, new = one(state, i)
            metrics = jax.tree.map(lambda all, one: all.at[..., i].set(one), metrics, new)
            return state, metrics

        last = jnp.minimum(source.first + source.count, t)
        return jax.lax.fori_loop(jnp.asarray(source.first), last, body, (state, empty))

    return learner._replace(step=step, chunk=t)
