"""Tell type checkers and editors the names of `relax_quantus`.

At run time each name is imported when it is first used.
"""

from relax_quantus import audio as audio
from relax_quantus import benchmark as benchmark
from relax_quantus import encoders as encoders
from relax_quantus import errors as errors
from relax_quantus import frontend as frontend
from relax_quantus import heads as heads
from relax_quantus import quantus_bridge as quantus_bridge
from relax_quantus import relax as relax
from relax_quantus.audio.reading import load_waveform as load_waveform
from relax_quantus.audio.reading import read_audio as read_audio
from relax_quantus.audio.reading import resample as resample
from relax_quantus.audio.reading import waveform_blocks as waveform_blocks
from relax_quantus.audio.torchaudio_bridge import import_torchaudio as import_torchaudio
from relax_quantus.encoders import load_encoder as load_encoder
from relax_quantus.encoders.waveform import WaveformEncoder as WaveformEncoder
from relax_quantus.frontend.log_mel import LogMel as LogMel
from relax_quantus.frontend.log_mel import LogMelConfig as LogMelConfig
from relax_quantus.frontend.log_mel import load_examples as load_examples
from relax_quantus.frontend.transform import TransformFrontEnd as TransformFrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier as EmbeddingClassifier
from relax_quantus.quantus_bridge import explain_func as explain_func
from relax_quantus.quantus_bridge import register_with_quantus as register_with_quantus
from relax_quantus.quantus_bridge import unregister_from_quantus as unregister_from_quantus
from relax_quantus.recordings.fitting import RecordingFit as RecordingFit
from relax_quantus.recordings.fitting import fit_recordings as fit_recordings
from relax_quantus.recordings.plan import ExplainSettings as ExplainSettings
from relax_quantus.recordings.recording import RecordingExplanation as RecordingExplanation
from relax_quantus.recordings.recording import RecordingMap as RecordingMap
from relax_quantus.recordings.session import Session as Session
from relax_quantus.recordings.session import explain_recording as explain_recording
from relax_quantus.recordings.stitching import Stitched as Stitched
from relax_quantus.recordings.stitching import explain_overlapping as explain_overlapping
from relax_quantus.recordings.stitching import stitch as stitch
from relax_quantus.relax import estimators as estimators
from relax_quantus.relax import fills as fills
from relax_quantus.relax import masks as masks
from relax_quantus.relax import similarity as similarity
from relax_quantus.relax.attribution import RELAX as RELAX
from relax_quantus.relax.explanation import Explanation as Explanation
from relax_quantus.relax.similarity import SimilarityForward as SimilarityForward
from relax_quantus.relax.similarity import SimilarityModel as SimilarityModel
from relax_quantus.views import maps as plotting

__version__: str

_HOME: dict[str, str]
_MODULES: dict[str, str]

__all__ = [
    "EmbeddingClassifier",
    "ExplainSettings",
    "Explanation",
    "LogMel",
    "LogMelConfig",
    "RELAX",
    "RecordingExplanation",
    "RecordingFit",
    "RecordingMap",
    "Session",
    "SimilarityForward",
    "SimilarityModel",
    "Stitched",
    "TransformFrontEnd",
    "WaveformEncoder",
    "__version__",
    "audio",
    "benchmark",
    "encoders",
    "errors",
    "estimators",
    "explain_func",
    "explain_overlapping",
    "explain_recording",
    "fills",
    "fit_recordings",
    "frontend",
    "heads",
    "import_torchaudio",
    "load_encoder",
    "load_examples",
    "load_waveform",
    "masks",
    "plotting",
    "quantus_bridge",
    "read_audio",
    "register_with_quantus",
    "relax",
    "resample",
    "similarity",
    "stitch",
    "unregister_from_quantus",
    "waveform_blocks",
]
