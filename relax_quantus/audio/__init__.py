"""Read sound files as mono float32 waveforms, at their own rate or at an encoder's.

First step of the flow: `reading` opens and decodes files, `quality` tells what is wrong with one,
`torchaudio_bridge` imports torchaudio where it can be.
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
