"""Make examples ``(n, 1, T, F)`` of waveforms, and say what their axes are in seconds and hertz.

Second step of the flow: `log_mel` is VGGish's front end, `transform` a torch transform of one's
own, `framing` cuts a recording into examples, which carry what they are (`examples`), and
`frame_times` and `axes` say when frames and where
bands are.
"""

from relax_quantus.frontend.axes import BinAxis, SampleAxis
from relax_quantus.frontend.examples import Axis, Examples
from relax_quantus.frontend.log_mel import LogMel, LogMelAxis, LogMelConfig, hz_to_mel, load_examples, mel_matrix
from relax_quantus.frontend.transform import TransformFrontEnd

__all__ = [
    "Axis",
    "BinAxis",
    "Examples",
    "LogMel",
    "LogMelAxis",
    "LogMelConfig",
    "SampleAxis",
    "TransformFrontEnd",
    "hz_to_mel",
    "load_examples",
    "mel_matrix",
]
