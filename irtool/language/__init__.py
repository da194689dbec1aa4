"""Natural-language instructions: sentences to intents, intents to a plan."""

from .intent import CustomTask, Intent, Span, check, needs_diagnosis, plan_intents
from .parser import DEFAULT_TEXT_MODEL, TextModel, load, parse

__all__ = [
    "DEFAULT_TEXT_MODEL", "CustomTask", "Intent", "Span", "TextModel", "check", "load", "needs_diagnosis", "parse",
    "plan_intents",
]  # fmt: skip
