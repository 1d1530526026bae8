"""`BenchmarkConfig`: everything a benchmark run depends on, frozen, with presets and a file format.

A preset's name, a TOML file or keywords enter; one frozen dataclass leaves, which `run` takes and ``run.json`` records.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from relax_quantus import checks
from relax_quantus.audio import RESAMPLERS
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError
from relax_quantus.registry import nearest


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of the benchmark.

    Parameters
    ----------
    preset
        Name of the preset that it started from; only recorded.
    data
        Folder of recordings: one folder a class, or a ``clips.csv``. None for synthetic soundscapes.
    encoder
        Name of a registered encoder.
    max_clips
        Clips to explain. Of synthetic soundscapes every sixth has no call.
    n_samples
        Masks N of each RELAX explanation.
    seed
        Of masks, permutations, metrics and the choice of clips.
    methods, metrics
        Names to run, in that order; empty for all that are registered.
    fill, estimator, domain
        Of the RELAX methods; the fill is also the integrated gradients' and occlusion's baseline and what faithfulness metrics put in.
    head_clips
        Clips that the logistic head is fitted on, at most.
    reexplain_clips, reexplain_samples
        Robustness and randomisation explain again and again: on the first so many clips, with so many masks.
    perturbations
        Perturbed copies of an input in the robustness metrics.
    resampler
        What brings recordings to 16 kHz: "soxr", or "torchaudio" where it imports.
    out
        Folder for the results; None writes nothing.
    """

    preset: str = "quick"
    data: str | None = None
    encoder: str = "vggish_mini"
    max_clips: int = 12
    n_samples: int = 300
    seed: int = 0
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    fill: str = "silence"
    estimator: str = "weighted"
    domain: str = "log"
    head_clips: int = 480
    reexplain_clips: int = 3
    reexplain_samples: int = 100
    perturbations: int = 3
    resampler: str = "soxr"
    out: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_clips", "n_samples", "head_clips", "reexplain_samples", "perturbations"):
            checks.integer(name, getattr(self, name))
        checks.integer("reexplain_clips", self.reexplain_clips, low=0)
        checks.integer("seed", self.seed, low=0)
        if self.domain not in ("log", "amplitude"):
            checks.refuse("domain", "'log' or 'amplitude'", repr(self.domain), "pick one")
        if self.resampler not in RESAMPLERS:
            hint = nearest(self.resampler, list(RESAMPLERS))
            raise UnknownNameError(f"resampler: expected the name of a resampler, got {self.resampler!r}; {hint}.")
        for name in ("methods", "metrics"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
                checks.refuse(name, "a list of names", repr(value), 'write ["..."]', ArgumentTypeError)
            object.__setattr__(self, name, tuple(value))

    @classmethod
    def from_preset(cls, preset: str, **overrides: Any) -> BenchmarkConfig:
        """Start from ``"quick"``, ``"default"`` or ``"paper"``; `overrides` that are None are ignored."""
        if preset not in PRESETS:
            raise UnknownNameError(
                f"preset: expected the name of a preset, got {preset!r}; {nearest(preset, list(PRESETS))}."
            )
        return cls(**{**PRESETS[preset], **cls._known(overrides), "preset": preset})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **overrides: Any) -> BenchmarkConfig:
        """Read a TOML file of this class' fields; its ``preset`` (default quick) gives what it leaves out, `overrides` win."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path}: expected a TOML file of benchmark settings, got {error}; check it.") from error
        given = cls._known({**table, **{key: value for key, value in overrides.items() if value is not None}})
        return cls.from_preset(str(given.pop("preset", "quick")), **given)

    @classmethod
    def _known(cls, settings: dict[str, Any]) -> dict[str, Any]:
        names = [field.name for field in fields(cls)]
        for key in settings:
            if key not in names:
                raise ArgumentError(f"{key}: expected a benchmark setting; {nearest(key, names)}.")
        return {key: value for key, value in settings.items() if value is not None}

    def resolved(self, encoder_given: bool = False) -> BenchmarkConfig:
        """Return a copy with every method and metric named; unknown names are errors that list the nearest.

        With `encoder_given`, ``encoder`` only says what was given, and may be any text.
        """
        from relax_quantus.benchmark.methods import METHODS
        from relax_quantus.benchmark.metrics import METRICS
        from relax_quantus.encoders import ENCODERS
        from relax_quantus.estimators import ESTIMATORS
        from relax_quantus.fills import FILLS

        for argument, names, registry in (
            ("methods", self.methods, METHODS),
            ("metrics", self.metrics, METRICS),
            ("encoder", () if encoder_given else (self.encoder,), ENCODERS),
            ("fill", (self.fill,), FILLS),
            ("estimator", (self.estimator,), ESTIMATORS),
        ):
            for name in names:
                if name not in registry:
                    hint = nearest(name, registry.names())
                    raise UnknownNameError(f"{argument}: expected the name of a {registry.kind}, got {name!r}; {hint}.")
        return replace(
            self, methods=self.methods or tuple(METHODS.names()), metrics=self.metrics or tuple(METRICS.names())
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "default": {
        "max_clips": 48,
        "n_samples": 1000,
        "head_clips": 600,
        "reexplain_clips": 12,
        "reexplain_samples": 300,
        "perturbations": 5,
    },
    "paper": {
        "max_clips": 180,
        "n_samples": 3000,
        "head_clips": 600,
        "reexplain_clips": 24,
        "reexplain_samples": 1000,
        "perturbations": 10,
    },
}
