"""Stops the gradients of a module's parameters in a loss term, as adversarial objectives need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def frozen(module: Any) -> Callable[..., Any]:
    """Returns a function that calls a module with its variables held constant.

    Gradients flow to the arguments of the call only, not to the module's variables.

    Args:
      module: a submodule of the bound model that a term receives, such as model.parts["critic"].

    Returns:
      A function with the same arguments and result as the module.
    """

    def apply(*arguments: Any) -> Any:
        if module.is_initializing():
            # During initialisation the parameters may not exist yet, and no gradient is computed.
            return module(*arguments)
        unbound, variables = module.unbind()
        return unbound.apply(jax.lax.stop_gradient(variables), *arguments)

    return apply
