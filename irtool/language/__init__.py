"""Words to a plan: what somebody wants done to a picture, in their own words."""

from .understand import TextModel, load, understand
from .wish import Wish, plan_wishes

__all__ = ["TextModel", "Wish", "load", "plan_wishes", "understand"]
