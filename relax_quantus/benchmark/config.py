"""`BenchmarkConfig`: everything a benchmark run depends on, frozen, with presets and a file format.

A preset's name, a TOML file or keywords enter; one frozen dataclass leaves, which `run` takes and
``run.json`` records.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from relax_quantus.audio.reading import RESAMPLERS
from relax_quantus.base import checks
from relax_quantus.base.registry import nearest
from relax_quantus.base.text_files import read_text
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError

LISTS = ("methods", "metrics", "datasets", "encoders", "seeds", "primary", "secondary")
END_POINTS = ("gain_embedding", "gain_logit", "auc_region")
"""What the report tests: the crossed gain in both views, and the area under the ROC curve against
what an encoder was shown.
"""
QUICK_METHODS = (
    *(f"RELAX-{masks}{twin}" for masks in ("random", "time", "frequency", "time_frequency") for twin in ("", " twin")),
    *("energy", "oracle", "Saliency", "IntegratedGradients", "Occlusion"),
)
"""The methods of the quick preset."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of the benchmark.

    Parameters
    ----------
    preset
        Name of the preset that it started from; only recorded.
    datasets, encoders
        Specifications, each ``name`` or ``name:key=value,...``; every pair of them is run. Empty
        for what `data` and `encoder` say.
    seeds
        Of masks, permutations and metrics: the whole grid once for each. Empty for `seed` alone.
    data
        The short way to one data set: a folder of recordings, one folder a class or with a
        ``clips.csv``. None for synthetic soundscapes.
    encoder
        The short way to one encoder.
    max_clips
        Clips of each data set to explain. Of synthetic soundscapes every sixth has no call.
    n_samples
        Masks N of each RELAX explanation.
    seed
        Of the data: what is synthesised and which clips are chosen. Also the one seed of masks,
        permutations and metrics if `seeds` is empty.
    methods, metrics
        Specifications of methods and names of metrics to run, in that order; empty for all that are
        registered or, in the quick preset, for `QUICK_METHODS` and `metrics.QUICK`.
    fill, estimator, domain
        Of the RELAX methods; the fill is also the integrated gradients' and occlusion's baseline
        and what faithfulness metrics put in.
    head_clips
        Clips that the logistic head is fitted on, at most.
    reexplain_clips, reexplain_samples
        Robustness and randomisation explain again and again: on the first so many clips, with so
        many masks.
    perturbations
        Perturbed copies of an input in the robustness metrics.
    curves
        Keep the metrics' curves, too: of long runs they are most of what is stored.
    resampler
        What brings recordings to 16 kHz: "soxr", or "torchaudio" where it imports.
    front_end
        What makes the examples of all encoders, as of the command's ``--front-end``; an encoder
        that is named as a pair with its own is run alone.
    perturbations_per_eval
        Masked copies a forward; None measures once for each encoder and records it, so that a run
        that goes on uses the same.
    out
        Folder for the results, and for the store from which the same command goes on; None writes
        nothing.
    workers, threads
        Processes on this machine, and threads of each: None shares the cores among them.
    scheduler
        Address of a Dask scheduler, whose workers are used instead.
    time_limit
        Seconds that one map, or one metric of one clip, may take; longer is a row of status
        "timeout". None is no limit.
    strict
        Stop at the first cell that fails, runs out of memory or time.
    retry
        Try again what failed, ran out of memory or time in an earlier run.
    primary, secondary
        Those of `END_POINTS` that were chosen as such before the run; the report says so, and calls
        the others exploratory. Empty says nothing.
    """

    preset: str = "quick"
    datasets: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
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
    curves: bool = True
    resampler: str = "soxr"
    front_end: str = "log_mel"
    perturbations_per_eval: int | None = None
    out: str | None = None
    workers: int = 1
    threads: int | None = None
    scheduler: str | None = None
    time_limit: float | None = None
    strict: bool = False
    retry: bool = False
    primary: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_clips", "n_samples", "head_clips", "reexplain_samples", "perturbations", "workers"):
            checks.integer(name, getattr(self, name))
        for name in ("threads", "perturbations_per_eval"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name))
        checks.integer("reexplain_clips", self.reexplain_clips, low=0)
        checks.integer("seed", self.seed, low=0)
        if self.time_limit is not None:
            checks.positive("time_limit", self.time_limit)
        if self.domain not in ("log", "amplitude"):
            checks.refuse("domain", "'log' or 'amplitude'", repr(self.domain), "pick one")
        if self.resampler not in RESAMPLERS:
            hint = nearest(self.resampler, list(RESAMPLERS))
            raise UnknownNameError(f"resampler: expected the name of a resampler, got {self.resampler!r}; {hint}.")
        for name in ("preset", "fill", "estimator", "encoder", "data", "out", "scheduler", "front_end"):
            self._of_type(name, str, "text", getattr(self, name))
        for name in ("curves", "strict", "retry"):
            self._of_type(name, bool, "true or false", getattr(self, name))
        self._listed()

    def _of_type(self, name: str, kind: type, words: str, value: Any) -> None:
        if not isinstance(value, kind) and value is not None:
            checks.refuse(name, words, repr(value), "change its type", ArgumentTypeError)

    def _listed(self) -> None:
        """Check the fields that are lists, and make them tuples."""
        for name in (name for name in LISTS if name != "seeds"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
                checks.refuse(name, "a list of names", repr(value), 'write ["..."]', ArgumentTypeError)
        if not isinstance(self.seeds, list | tuple):
            checks.refuse("seeds", "a list of whole numbers", repr(self.seeds), "write [0, 1]", ArgumentTypeError)
        for value in self.seeds:
            checks.integer("seeds", value, low=0)
        for name in (*self.primary, *self.secondary):
            if name not in END_POINTS:
                argument = "primary" if name in self.primary else "secondary"
                raise UnknownNameError(
                    f"{argument}: expected the name of an end point, got {name!r}; {nearest(name, list(END_POINTS))}."
                )
        if both := set(self.primary) & set(self.secondary):
            checks.refuse(
                "secondary", "end points that are not primary, too", ", ".join(sorted(both)), "name each once"
            )
        for name in LISTS:
            value = tuple(getattr(self, name))
            if len(set(value)) < len(value):
                listing = ", ".join(map(str, value))
                raise ArgumentError(f"{name}: expected each once, got {listing}; remove the repeated ones.")
            object.__setattr__(self, name, value)

    @classmethod
    def from_preset(cls, preset: str, **overrides: Any) -> BenchmarkConfig:
        """Start from ``"quick"``, ``"default"`` or ``"paper"``.

        `overrides` that are None are ignored.
        """
        if preset not in PRESETS:
            raise UnknownNameError(
                f"preset: expected the name of a preset, got {preset!r}; {nearest(preset, list(PRESETS))}."
            )
        return cls(**{**PRESETS[preset], **cls._known(overrides), "preset": preset})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **overrides: Any) -> BenchmarkConfig:
        """Read a TOML file whose keys are the fields of this class.

        Its ``preset`` (by default quick) gives what it leaves out; `overrides` win over both.
        """
        try:
            table = tomllib.loads(read_text(path, "a TOML file of benchmark settings", legacy=False))
        except tomllib.TOMLDecodeError as error:
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
        """Return a copy with every method, metric, data set, encoder and seed named.

        Unknown names are errors that list the nearest.

        With `encoder_given`, ``encoder`` only says what was given, and may be any text.
        """
        from relax_quantus.benchmark import metrics
        from relax_quantus.benchmark.data import datasets
        from relax_quantus.benchmark.methods import registry as methods
        from relax_quantus.encoders import loading as nets
        from relax_quantus.relax.estimators import ESTIMATORS
        from relax_quantus.relax.fills import FILLS

        quick = self.preset == "quick"
        full = replace(
            self,
            methods=self.methods or (QUICK_METHODS if quick else tuple(methods.names())),
            metrics=self.metrics or (metrics.QUICK if quick else tuple(metrics.METRICS.names())),
            datasets=self.datasets or ("synthetic" if self.data is None else self.data,),
            encoders=self.encoders or (self.encoder,),
            seeds=self.seeds or (self.seed,),
        )
        full = replace(full, methods=tuple(method.name for method in methods.build(full.methods)))
        for spec in full.datasets:
            datasets.specified(spec)
        for spec in () if encoder_given else full.encoders:
            nets.known(spec)
        for argument, names, registry in (
            ("metrics", full.metrics, metrics.METRICS),
            ("fill", (full.fill,), FILLS),
            ("estimator", (full.estimator,), ESTIMATORS),
        ):
            for name in names:
                if name not in registry:
                    hint = nearest(name, registry.names())
                    raise UnknownNameError(f"{argument}: expected the name of a {registry.kind}, got {name!r}; {hint}.")
        return full

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {},
    "default": {
        "max_clips": 18,
        "n_samples": 500,
        "head_clips": 600,
        "reexplain_clips": 3,
        "reexplain_samples": 200,
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
