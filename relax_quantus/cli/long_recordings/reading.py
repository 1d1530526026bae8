"""The blocks of a recording as one: maps frame after frame, and what there is one of an example."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from relax_quantus.cli.long_recordings.plan import Plan
from relax_quantus.cli.long_recordings.store import Array, BlockStore
from relax_quantus.views.thresholds import Bounds, Values, bounds_of_parts


class Stored:
    """What was found about one recording, read from its blocks as it is needed.

    Attributes
    ----------
    labels
        Strategies, and fills if there are several.
    """

    def __init__(self, plan: Plan, store: BlockStore, labels: list[str]) -> None:
        self.plan, self.store, self.labels = plan, store, labels
        self.bands = self._of(0, "x").shape[1]
        self._bounds: dict[str, Bounds] = {}

    def rows(self, name: str) -> Iterator[Array]:
        """A map's frames ``(rows, F)`` block by block; NaN where a block has none."""
        for number in range(self.plan.blocks):
            rows, found = len(self._of(number, "x")), self.store.get(number, name)
            yield np.broadcast_to(np.full((1, 1), np.nan, np.float32) if found is None else found, (rows, self.bands))

    def centred(self, label: str) -> Iterator[Array]:
        """Importance minus what it were if no bin mattered, ``(rows, F)``."""
        for importance, neutral in zip(self.rows(f"importance_{label}"), self.rows(f"neutral_{label}"), strict=True):
            yield importance - neutral

    def z(self, label: str) -> Iterator[Values]:
        """Centred importance over its error, ``(rows, F)``; NaN where it is unknown and where nothing is heard."""
        heard, frame = self.heard(label), 0
        for centred, error in zip(self.centred(label), self.rows(f"centred_standard_error_{label}"), strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                z = centred.astype(np.float64) / error
            z[~heard[frame : frame + len(z)]] = np.nan
            frame += len(z)
            yield z

    def hears_nothing(self, label: str) -> Array:
        """In which examples the network hears nothing, ``(n,)``."""
        louder: Array = self.each(f"fully_masked_similarity_{label}") >= self.each(f"mean_similarity_{label}")
        louder &= self.each(f"compared_with_itself_{label}").astype(bool)
        return louder

    def heard(self, label: str) -> Array:
        """Whether the network hears anything in any of the examples that hold a frame, ``(frames,)``."""
        found = np.zeros(self.plan.frames, dtype=bool)
        for example in np.flatnonzero(~self.hears_nothing(label)):
            start = int(example) * self.plan.hop
            found[start : start + self.plan.framing.per_example] = True
        return found

    def bounds(self, label: str) -> Bounds:
        """What a bin of a label's map has to pass to stand out; looked for once."""
        if label not in self._bounds:
            maxima, statistic = (torch.from_numpy(self.each(f"{n}_{label}")) for n in ("null_maxima", "null_statistic"))
            self._bounds[label] = bounds_of_parts(
                lambda: zip(self.centred(label), self.z(label), strict=True),
                maxima,
                statistic,
                torch.from_numpy(self.hears_nothing(label)),
            )
        return self._bounds[label]

    def kinds(self, label: str) -> list[str]:
        """Names of a label's maps."""
        found = ["importance", "uncertainty", "standard_error", "centred_standard_error", "neutral"]
        has_effects = any(f"cell_effects_{label}" in self.store.names(n) for n in range(self.plan.blocks))
        return [*found, "cell_effects"] if has_effects else found

    def each(self, name: str) -> Values:
        """What there is one of an example, of all."""
        return np.concatenate([self._of(number, name) for number in range(self.plan.blocks)])

    def mean(self, name: str) -> float:
        """The mean over all examples that have a value."""
        return float(torch.from_numpy(self.each(name)).double().nanmean())

    @property
    def probabilities(self) -> torch.Tensor | None:
        """Each class's probability ``(n, classes)``, with a classifier."""
        return torch.from_numpy(self.each("probabilities")) if "probabilities" in self.store.names(0) else None

    def _of(self, number: int, name: str) -> Array:
        found = self.store.get(number, name)
        assert found is not None  # every block has it
        return found
