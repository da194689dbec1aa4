"""What the text model says of every token."""

from __future__ import annotations

from ..degradation import IDS

OUTSIDE = ("outscale", "outperson", "outedit", "outtone", "outshape", "outchat")
"""Kinds of requests that irtool has nothing for."""
KINDS = ("", *IDS, "auto", "rest", *OUTSIDE)
"""Of what a token speaks: of nothing, a degradation, the picture at large ("fix it"), all that is not named
("everything else"), or something outside."""
ACTS = ("undo", "keep", "ask")
LEVELS = ("full", "hint", "little", "moderate", "number")
STRENGTHS = {"full": 1.0, "hint": 0.25, "little": 0.5, "moderate": 0.75}
"""What a word for a strength stands for; "number" means that the sentence names a figure."""
ORDERS = ("", "forward", "backward")
"""Whether the sentence gives an order, and whether what is to come first is also said first."""
