"""Explanations -> pages: one HTML file a recording that can be looked at, clicked and heard, without a network or any other file.

A leaf of the flow beside `relax_quantus.plotting`: examples, explanations and the original waveform enter, text of HTML leaves.
"""

from relax_quantus.report.assembly import Entry, index_page, page
from relax_quantus.report.companions import Companion, Recording
from relax_quantus.report.layers import Layer

__all__ = ["Companion", "Entry", "Layer", "Recording", "index_page", "page"]
