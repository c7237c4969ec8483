"""Holds a module constant in a term, so that one objective can express an adversarial game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def frozen(module: Any) -> Callable[..., Any]:
    """Returns the module's call with its variables under stop_gradient.

    Gradients still flow to the call's arguments.

    Args:
      module: a submodule of the bound model that a term receives, such as model.parts["critic"].

    Returns:
      A function with the module's own arguments.
    """

    def apply(*arguments: Any) -> Any:
        if module.is_initializing():
            # The parameters may not exist yet, and initialisation computes no gradient.
            return module(*arguments)
        unbound, variables = module.unbind()
        return unbound.apply(jax.lax.stop_gradient(variables), *arguments)

    return apply
