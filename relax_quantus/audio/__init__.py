"""Sound file -> mono float32 waveform at its own rate, or at the one that an encoder wants.

First room of the flow: `reading` is the door; `decoding` and `unclosed` know files, `quality` what deserves a warning,
`torchaudio_bridge` torchaudio where it imports.
"""

from relax_quantus.audio.quality import AudioWarning
from relax_quantus.audio.reading import load_waveform, measure_extent, read_audio, resample, waveform_blocks
from relax_quantus.audio.torchaudio_bridge import import_torchaudio

__all__ = [
    "AudioWarning",
    "import_torchaudio",
    "load_waveform",
    "measure_extent",
    "read_audio",
    "resample",
    "waveform_blocks",
]
