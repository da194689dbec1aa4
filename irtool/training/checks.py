"""Checks of recipes that several kinds of training share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from ..errors import UnavailableError
from ..models.bounded import bounded
from ..tables import unknown
from .recipe import Recipe


def recipe_problems(network: type[nn.Module], recipe: Recipe, settings: Sequence[str] = ()) -> list[str]:
    """What is wrong with `recipe.model` for a network, and with the keys of `recipe.settings`, a phrase each.

    Args:
        network: its keyword arguments are what [model] may hold; it is built without memory for its weights to see
            whether the values fit.
        recipe: to check.
        settings: keys that the job knows.
    """
    known = list(inspect.signature(network).parameters)
    problems = [f"model: unknown key {unknown(key, known)}" for key in recipe.model if key not in known]
    problems += [f"settings: unknown key {unknown(key, settings)}" for key in recipe.settings if key not in settings]
    if not problems:
        try:
            with torch.device("meta"), bounded():
                network(**recipe.model)
        except UnavailableError:
            pass  # a package is missing here; the recipe is not to blame
        except Exception as error:  # whatever a network makes of a value that it cannot take
            problems.append(f"model: {network.__name__} cannot be built ({error})")
    return problems
