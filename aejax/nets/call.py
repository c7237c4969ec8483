"""How the model calls a net: it passes the training mode, and the context if the net accepts one.

Any Linen module can be an encoder or decoder; it needs neither an argument for the context nor one
for the training mode:

    nn.Sequential([nn.Dense(64), nn.BatchNorm(), nn.relu, nn.Dropout(0.1), nn.Dense(16)])

Flax's layers have an argument for the training mode: BatchNorm has `use_running_average`, Dropout
has `deterministic`, SpectralNorm has `update_stats`. `call` sets each such argument that a layer
has not been given. It sets the arguments of the net itself even if they have a default:

    def __call__(self, values, train=False): ...         # the model passes train=True in training
    def __call__(self, values, context=None): ...        # the model passes the batch's context
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import (
    ModifyScopeVariableError,
    ScopeCollectionNotFound,
    ScopeParamNotFoundError,
    ScopeParamShapeError,
)

from aejax.errors import UserError

# The names of arguments that state the training mode, and their values during training.
FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "update_stats": True,
    "deterministic": False,
    "use_running_average": False,
}

# The error of a module whose parameter is absent from the variables.
MissingParameter = ScopeParamNotFoundError


def training(module: nn.Module) -> bool:
    """Returns whether a module is being called in a training step, not in an evaluation.

    A training step makes the collection "memory" mutable and provides a random key. A net of your
    own may call this function in its `__call__`.
    """
    if module.is_initializing() or not module.is_mutable_collection("memory"):
        return False
    return module.has_rng("params") or module.has_rng("dropout")


def call(net: Any, values: Any, context: Any = None) -> Any:
    """Calls a net with values and, if it accepts one, the context.

    Args:
      net: a Linen module or a function, of values alone or of (values, context). It is given the
        context if it has an argument of that name, or a second argument without a default.
      values: the net's input, [B, ...].
      context: the batch's context.
    """
    first = _first(net)
    parameters = _parameters(first)
    arguments, named = (values,), {}
    if _takes_context(parameters, context):
        # The context is passed by position, because the second argument may have any name; if an
        # argument called "context" comes later, it is passed by name.
        if "context" in list(parameters)[2:]:
            named = {"context": context}
        else:
            arguments = (values, context)
    if not isinstance(net, nn.Module):
        return net(*arguments, **named)
    _check_arguments(net, parameters, arguments, named)
    told = {name: FLAGS[name] == training(net) for name in parameters if name in FLAGS}
    told = {name: value for name, value in told.items() if getattr(first, name, None) is None}
    with nn.intercept_methods(_tell):
        return net(*arguments, **named, **told)


def _check_arguments(
    net: nn.Module,
    parameters: dict[str, inspect.Parameter],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    """Raises UserError if a net cannot be called with the values and the context alone."""
    if not parameters:
        return
    needed = [one for one in parameters.values() if one.name not in FLAGS]
    try:
        inspect.Signature(needed).bind(*arguments, **named)
    except TypeError as error:
        raise UserError(
            f"{type(net).__name__} is called with the values and, if it takes one, the context, "
            f"but its __call__ has the arguments ({', '.join(parameters)}): {error}; define "
            "__call__(self, values) or __call__(self, values, context)"
        ) from error


def _tell(
    method: Callable[..., Any],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    context: Any,
) -> Any:
    """Calls a layer in place of Flax, and sets those arguments in FLAGS that it was not given.

    FLAGS are the arguments for the training mode. The arguments of this function are those of an
    interceptor of `nn.intercept_methods`.
    """
    module = context.module
    if context.method_name != "__call__":
        return method(*arguments, **named)
    if _is_bridge(module):
        return method(*arguments, **{"nnx_method": _nnx_call(training(module)), **named})
    signature = inspect.signature(context.orig_method)
    for name in FLAGS.keys() & signature.parameters.keys():
        default = signature.parameters[name].default
        is_open = default is None or default is inspect.Parameter.empty
        given = signature.bind_partial(*arguments, **named).arguments
        if is_open and name not in given and getattr(module, name, None) is None:
            named = {**named, name: FLAGS[name] == training(module)}
    return method(*arguments, **named)


def _is_bridge(net: Any) -> bool:
    """Returns whether a net is an NNX module wrapped by Flax's own bridge to Linen."""
    bridge = sys.modules.get("flax.nnx.bridge")
    return bridge is not None and isinstance(net, bridge.ToLinen)


def _nnx_call(trains: bool) -> Callable[..., Any]:
    """Returns a function that sets an NNX module's training mode, an attribute, and calls it."""

    def call(module: Any, *arguments: Any, **named: Any) -> Any:
        module.train() if trains else module.eval()
        return module(*arguments, **named)

    return call


@contextlib.contextmanager
def fitting(role: str, part: Any, values: Any, context: Any) -> Iterator[None]:
    """Turns Flax's error for parameters of a wrong shape into one that names the module.

    Args:
      role: the role of the module in the model, such as "encoder".
      part: the module that is called inside the `with` block.
      values: the input of the call, [B, ...].
      context: the context of the call.

    Raises:
      UserError: if a parameter has another shape than the values and the context require.
    """
    try:
        yield
    except ModifyScopeVariableError as error:
        raise UserError(
            f"the {role} {type(part).__name__} updates its running averages in evaluation too, "
            "where they must stay as they are: leave out arguments such as "
            "use_running_average=False, which the model sets"
        ) from error
    except ScopeCollectionNotFound as error:
        raise UserError(
            f"the variables hold no parameters for the {role} {type(part).__name__}: give those of "
            "learner.variables(state) or load(folder), a mapping with the key 'params'"
        ) from error
    except ScopeParamShapeError as error:
        name = f"the {role} {type(part).__name__}"
        shapes = re.findall(r"\([\d, ]*\)", str(error))
        wanted, held = shapes if len(shapes) == 2 else ("another shape", "its own")
        if _sizes(held)[1:] == _sizes(wanted) != []:
            raise UserError(
                f"{name} has parameters of shape {held} in place of {wanted}, which are the "
                "parameters of several seeds: choose one of them, as in load(folder, seed=0)"
            ) from error
        given = "without a context" if context is None else f"with a context of {_shapes(context)}"
        on = "" if values is None else f"with values of shape {_shapes(values)} "
        raise UserError(
            f"{name} was called {on}{given}, which needs parameters of shape {wanted}, but it has "
            f"{held}: {_advice(wanted, held, context)}"
        ) from error


def _advice(wanted: str, held: str, context: Any) -> str:
    """Returns the advice of the error for parameters of the shape `held` instead of `wanted`."""
    rows = [_sizes(wanted), _sizes(held)]
    if context is None and all(rows) and rows[0][1:] == rows[1][1:] and rows[1] > rows[0]:
        return (
            f"give the context, of {rows[1][0] - rows[0][0]} columns, if the model was initialised "
            "with one, or else values of the size with which it was initialised"
        )
    return "give values and context of the shapes with which the model was initialised"


def _sizes(shape: str) -> list[int]:
    """Returns the sizes in the text of a shape, such as [8, 4] of "(8, 4)"."""
    return [int(size) for size in re.findall(r"\d+", shape)]


def _shapes(values: Any) -> str:
    shapes = [str(jnp.shape(leaf)) for leaf in jax.tree.leaves(values)]
    return " and ".join(shapes)


def check_net(net: Any, role: str) -> str | None:
    """Returns a sentence that says why a net cannot be used in a model, or None if it can.

    A net cannot be used if it is a class, or if it contains an nnx.Module.
    """
    if isinstance(net, type):
        return (
            f"the {role} of this model is the class {net.__name__}: give an object of it, as "
            f"{net.__name__}(...)"
        )
    nnx = sys.modules.get("flax.nnx")
    for part in _within(net):
        if nnx is not None and isinstance(part, nnx.Module):
            name = type(part).__name__
            return (
                f"the {role} of this model holds the nnx.Module {name}, whose parameters Flax "
                f"Linen does not see and would not train: give flax.nnx.bridge.to_linen({name}, "
                "...), with the class and its arguments in place of the object"
            )
    return None


def _within(net: Any) -> list[Any]:
    """Returns a list of a net and, recursively, of the values in its fields and containers."""
    if isinstance(net, Mapping):
        net = tuple(net.values())
    if isinstance(net, list | tuple):
        return [part for item in net for part in _within(item)]
    if not isinstance(net, nn.Module):
        return [net]
    fields = [name for name in net.__dataclass_fields__ if name != "parent"]
    return [net, *(part for name in fields for part in _within(getattr(net, name, None)))]


def _first(net: Any) -> Any:
    """Returns the module that receives a net's arguments: in a Sequential the first layer."""
    if isinstance(net, nn.Sequential) and net.layers:
        return _first(net.layers[0])
    return net.nnx_class if _is_bridge(net) else net


def _takes_context(parameters: dict[str, inspect.Parameter], context: Any) -> bool:
    if "context" in parameters:
        return True
    kinds = [parameter.kind for parameter in parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return context is not None
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    placed = [parameter for parameter in parameters.values() if parameter.kind in by_place]
    return (
        len(placed) > 1
        and placed[1].default is inspect.Parameter.empty
        and placed[1].name not in FLAGS
    )


def _parameters(net: Any) -> dict[str, inspect.Parameter]:
    """Returns the parameters in the signature of a net's `__call__` by name, without `self`."""
    function = net.__call__ if isinstance(net, nn.Module) else net
    if inspect.isclass(net):
        function = net.__call__
    try:
        found = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # Some functions written in C have no signature.
        return {}
    found.pop("self", None)
    return found
