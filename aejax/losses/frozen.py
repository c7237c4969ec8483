"""A part of the model as a constant: what makes one objective of an adversarial game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def frozen(module: Any) -> Callable[..., Any]:
    """The module's call with its variables under stop_gradient; arguments keep their gradient.

    Args:
      module: a part of the bound model that a term sees, such as model.parts["critic"].

    Returns:
      A function of the module's own arguments.
    """

    def apply(*arguments: Any) -> Any:
        if module.is_initializing():
            # The parameters may not be there yet; nothing is differentiated while they are made.
            return module(*arguments)
        unbound, variables = module.unbind()
        return unbound.apply(jax.lax.stop_gradient(variables), *arguments)

    return apply
