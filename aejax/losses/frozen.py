"""Keeps the parameters of a module constant in a term, as adversarial objectives need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def frozen(module: Any) -> Callable[..., Any]:
    """Returns a function that calls a module without gradients for the module's variables.

    Gradients still flow to the arguments of the call.

    Args:
      module: a submodule of the bound model that a term receives, such as model.parts["critic"].

    Returns:
      A function with the same arguments and result as the module.
    """

    def apply(*arguments: Any) -> Any:
        if module.is_initializing():
            # The parameters may not exist yet, and initialisation computes no gradient.
            return module(*arguments)
        unbound, variables = module.unbind()
        return unbound.apply(jax.lax.stop_gradient(variables), *arguments)

    return apply
