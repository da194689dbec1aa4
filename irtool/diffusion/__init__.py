"""Diffusion processes and their samplers, as pure functions that read like the papers. Nothing here knows a network."""

from __future__ import annotations
