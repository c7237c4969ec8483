"""Hooks: named places in the forward pass where values are read and replaced.

    resid_pre.L     f[B, P, D]     the residual stream before block L
    attn_pattern.L  f[B, H, P, S]  the attention weights of each head over the S slots of keys
    attn_out.L      f[B, P, D]     what attention adds to the residual stream
    resid_mid.L     f[B, P, D]     the residual stream between attention and MLP
    mlp_in.L        f[B, P, D]     what the MLP's matrices read, after the norm
    mlp_out.L       f[B, P, D]     what the MLP adds to the residual stream
    resid_post.L    f[B, P, D]     the residual stream after block L

Every block passes each of these values through `tap(name, value)` and continues with the result.
The tap first edits the value and then reads it, so the value that is read is the edited one. If the
blocks are scanned, a block's index is known only at run time, and the tap compares it with the
hook's layer then; for unrolled blocks this happens during tracing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from aejax.errors import UserError
from aejax.types import Array

# The names of all hooks, in the order in which a block passes them.
HOOKS = ("resid_pre", "attn_pattern", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")

# (value at the hook, position i32[B, P] of each token in its text, -1 for padding) -> new value.
# An edit is a pytree, such as jax.tree_util.Partial, so that it passes through jit with its arrays.
Edit: TypeAlias = Callable[[Array, Array], Array]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class At:
    """A placeholder, among an edit's arguments, for the value at an earlier hook of the same pass.

    The edit Partial(function, At("mlp_in.3")) calls function(value at mlp_in.3, value, position).
    """

    hook: str


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MadeFor:
    """A mark, among an edit's arguments, that names the only hook at which the edit is allowed."""

    hook: str
    otherwise: str  # the end of the error's sentence: what to do at another hook

    def check(self, hook: str) -> None:
        """Raises UserError unless the value at `hook` is that at the hook the edit was made for."""
        if _same(hook) != _same(self.hook):
            raise UserError(f"the edit at {hook} was made for {self.hook}: {self.otherwise}")


class Hook(NamedTuple):
    """One hook of one block: `str(Hook("mlp_out", 3))` is "mlp_out.3"."""

    name: str  # one of HOOKS
    layer: int  # the index of the block, from 0

    def __str__(self) -> str:
        return f"{self.name}.{self.layer}"


def parse(hook: str, layers: int) -> Hook:
    """Parses the written form of a hook, such as "resid_post.15".

    Args:
      hook: the hook's name, a full stop, and the layer, counted from 0.
      layers: the number of the model's layers.

    Raises:
      UserError: if there is no such hook or layer.
    """
    name, _, layer = hook.rpartition(".")
    if name not in HOOKS or not layer.isascii() or not layer.isdigit():
        raise UserError(
            f"there is no hook {hook!r}: give one of {', '.join(HOOKS)}, a full stop and a layer "
            f"from 0 to {layers - 1}, as in resid_post.3"
        )
    if int(layer) >= layers:
        raise UserError(
            f"hook {hook!r} is of layer {int(layer)}, but the model has layers 0 to {layers - 1}"
        )
    return Hook(name, int(layer))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Taps:
    """The edits and reads at the hooks of one forward pass.

    Attributes:
      edits: hook -> the edit of the value there.
      reads: the hooks whose values the pass returns.
    """

    edits: Mapping[str, Edit] = dataclasses.field(default_factory=dict)
    reads: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    def depth(self, layers: int) -> int:
        """Returns the number of blocks that must run to reach every hook.

        Raises:
          UserError: if a hook or its layer does not exist.
        """
        for hook, edit in self.edits.items():
            place = parse(hook, layers)
            for made in _found(edit, MadeFor):
                made.check(hook)
            for at in _found(edit, At):
                if not _order(parse(at.hook, layers)) < _order(place):
                    raise UserError(
                        f"the edit at {hook} reads {at.hook}, which the pass reaches only "
                        "afterwards: let it read an earlier hook"
                    )
        hooks = (*self.edits, *self.reads)
        return 1 + max((parse(hook, layers).layer for hook in hooks), default=-1)

    @property
    def kept(self) -> tuple[str, ...]:
        """The hooks whose values the pass stores: `reads`, and those that an edit names by At."""
        asked = (at.hook for edit in self.edits.values() for at in _found(edit, At))
        return tuple(dict.fromkeys((*self.reads, *asked)))

    def at(self, layer: int | Array, position: Array, seen: Mapping[str, Array]) -> Tap:
        """Returns the function `tap(name, value)` of one block.

        Args:
          layer: the index of the block; it is traced if blocks are scanned.
          position: the position of each token in its text, i32[B, P].
          seen: hook -> the value stored so far; if blocks are scanned, with an entry for every hook
            in `kept`.
        """
        return Tap(self, layer, position, dict(seen))


class Tap:
    """One block's function `tap(name, value)`: it edits a value and may store it in `seen`."""

    def __init__(self, taps: Taps, layer: int | Array, position: Array, seen: dict[str, Array]):
        self.taps, self.layer, self.position, self.seen = taps, layer, position, seen

    def __call__(self, name: str, value: Array) -> Array:
        """Returns the value with which the block continues, of the shape and dtype of `value`."""
        value = apart(value)
        for hook, edit in self.taps.edits.items():
            if hook.startswith(f"{name}."):
                value = apart(self._edited(hook, edit, value))
        for hook in self.taps.kept:
            if hook.startswith(f"{name}."):
                self._read(hook, value)
        return value

    def _edited(self, hook: str, edit: Edit, value: Array) -> Array:
        def change(value: Array) -> Array:
            try:
                new = _filled(edit, self.seen)(value, self.position)
            except UserError as error:
                raise UserError(f"the edit at {hook}: {error}") from error
            if new.shape != value.shape:
                raise UserError(
                    f"the edit at {hook} returned shape {new.shape} for a value of shape "
                    f"{value.shape}: an edit must keep the shape"
                )
            return new.astype(value.dtype)

        here = self._here(hook)
        if isinstance(here, bool):
            return change(value) if here else value
        return jax.lax.cond(here, change, lambda value: value, value)

    def _read(self, hook: str, value: Array) -> None:
        here = self._here(hook)
        if here is True:
            self.seen[hook] = value
        elif here is not False:
            self.seen[hook] = jnp.where(here, value, self.seen[hook])

    def _here(self, hook: str) -> bool | Array:
        """Returns whether the hook is in this block; the bool is traced if blocks are scanned."""
        return self.layer == int(hook.rpartition(".")[2])


def _found(edit: Edit, kind: type) -> list[Any]:
    """Returns the leaves of an edit that are instances of a class, At or MadeFor."""
    leaves = jax.tree.leaves(edit, is_leaf=lambda part: isinstance(part, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _filled(edit: Edit, seen: Mapping[str, Array]) -> Edit:
    """Returns an edit in which each At is replaced by the value at its hook."""

    def value(part: Any) -> Any:
        return seen[part.hook] if isinstance(part, At) else part

    return jax.tree.map(value, edit, is_leaf=lambda part: isinstance(part, At))


def _order(hook: Hook) -> tuple[int, int]:
    """Returns a sort key that orders hooks as a forward pass reaches them."""
    return hook.layer, HOOKS.index(hook.name)


def _same(hook: str) -> str:
    """Returns resid_post.2 for resid_pre.3, which has the same value, and so for every layer.

    Any other hook is returned unchanged, so that equal results mean equal values.
    """
    name, _, layer = hook.rpartition(".")
    if name == "resid_pre" and layer.isdigit() and int(layer):
        return f"resid_post.{int(layer) - 1}"
    return hook


def wrapped(edits: Mapping[str, Edit] | None) -> dict[str, Edit]:
    """Returns the edits as pytrees that can pass through jit.

    A bare function becomes a Partial; a program is compiled once for each function object.
    """
    given = (edits or {}).items()
    leaf = jax.tree_util.all_leaves
    return {hook: jax.tree_util.Partial(e) if leaf([e]) else e for hook, e in given}


def apart(value: Array) -> Array:
    """Returns the same value, and keeps XLA from fusing the operations before and after a hook.

    The results are then bitwise the same whether or not the hook is used. On CPUs a barrier alone
    does not suffice: XLA would still turn a product before it and a sum after it into one fused
    multiply-add, which rounds differently, so the value also passes through a `where`.
    """
    value = jax.lax.optimization_barrier(value)
    return jnp.where(jnp.isnan(value), jnp.nan, value)


def blank(taps: Taps, shapes: Mapping[str, Any]) -> dict[str, Array]:
    """Returns hook -> zeros for each hook that a scan over blocks will read: its initial value.

    Args:
      taps: the edits and reads of the pass.
      shapes: the hook's name, without its layer -> jax.ShapeDtypeStruct of its value.
    """
    of = {hook: shapes[hook.rpartition(".")[0]] for hook in taps.kept}
    return {hook: jnp.zeros(shape.shape, shape.dtype) for hook, shape in of.items()}


def checked(hooks: Iterable[str], layers: int) -> tuple[str, ...]:
    """Returns the hooks as strings such as "mlp_out.3", after checking that each exists.

    Raises:
      UserError: if a hook does not exist; the message names the first such hook.
    """
    return tuple(str(parse(hook, layers)) for hook in hooks)
