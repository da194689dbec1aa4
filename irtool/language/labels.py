"""The labels that the text model gives to every token."""

from __future__ import annotations

from ..degradation import IDS, REPAIRS

OUTSIDE = ("outscale", "outperson", "outedit", "outtone", "outshape", "outchat")
"""Requests that irtool has no model for."""
FOREIGN = "foreign"
"""A word of a language that irtool does not claim."""
KINDS = ("", *IDS, "auto", "rest", *OUTSIDE, FOREIGN, *(d.id for d in REPAIRS))
"""What a token is about: nothing, a degradation, the picture in general ("fix it"), everything not named ("the rest"),
a request that irtool has no model for, another language, or what age does to prints. In the order in which the text
model learned them."""
ACTS = ("undo", "keep", "ask", "deny")
"""What is to be done about it; "deny": the sentence says that it is not there ("it is not noisy, but hazy")."""
LEVELS = ("full", "hint", "little", "moderate", "number")
STRENGTHS = {"full": 1.0, "hint": 0.25, "little": 0.5, "moderate": 0.75}
"""Strength of each level; for "number" it is a figure in the sentence."""
ORDERS = ("", "forward", "backward")
"""Whether the sentence gives an order, and whether the task to be done first is also named first."""
