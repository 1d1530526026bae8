"""Explanations -> pages.

One HTML file a recording that can be looked at, clicked and heard, without a network or any other
file.

A leaf of the flow beside `relax_quantus.views.maps`: examples, explanations and the original
waveform enter, text of HTML leaves.
"""

from relax_quantus.views.page.companions import Companion, Recording
from relax_quantus.views.page.html_page import Entry, index_page, page
from relax_quantus.views.page.layers import Layer

__all__ = ["Companion", "Entry", "Layer", "Recording", "index_page", "page"]
