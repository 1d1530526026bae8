"""Embed examples ``(n, 1, 96, 64)`` or waveforms ``(n, samples)`` as ``(n, D)``.

Third step of the flow: `loading` finds an encoder and its front end, and each encoder of ours is a
file of its own; `weights_file` reads weights of the user's.
"""

from relax_quantus.encoders.loading import ENCODERS, Encoder, load_encoder, randomised

__all__ = ["ENCODERS", "Encoder", "load_encoder", "randomised"]
