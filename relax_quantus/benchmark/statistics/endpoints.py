"""The crossed design: explainers against evaluators, none of which marks its own work.

Oriented rows enter; an `Endpoint` leaves: scores by cell (one explained example), method and
evaluator, and which evaluators are a method's own. An evaluator removes parts of one granularity
and puts one fill into them. It is a method's own where it shares the method's fill or granularity
(`own_granularity`, the one place that says so). An evaluator whose parts a map does not tell apart
did not measure it and counts for neither side. A single metric is an end point with one evaluator
that is nobody's own.

- *level* of a method: mean over the evaluators that are foreign to it; beside it the same minus its
  shuffled twin's, which says whether it knows anything.
- *difference* of two methods: over the evaluators that are foreign to both, cell by cell, so no
  evaluator counts for one side only. Scores are compared as they are: a twin is expected to score
  the same whatever its masks, so taking it off would add its noise and nothing else.
- *own-cell advantage*: own minus foreign evaluators, as measured; and adjusted, after what the
  methods foreign to each evaluator reach there on average is taken off (an evaluator on which
  everybody scores high is no advantage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from relax_quantus.benchmark.statistics.rows import CELL, measured, methods, twins

if TYPE_CHECKING:
    import pandas as pd

OWN_GRANULARITY = {
    "time": "time",
    "frequency": "frequency",
    "time_frequency": "patch",
    "random": "patch",
}
"""Mask strategy -> the granularity of the evaluators that remove what it masks, for results in
which the rows do not say so themselves.
"""
OWN_GRANULARITY_OF_METHOD = dict.fromkeys(("Occlusion", "FeatureAblation", "KernelShap", "Lime", "ShapleyValueSampling"), "patch")  # fmt: skip
"""The same for methods without a mask strategy that remove patches."""
CROSSED = "SRG-"
"""How the names of the crossed evaluators begin; other metrics that remove parts are metrics of
their own.
"""
BY_EVALUATOR = ["dataset", "encoder", "metric"]
MANY = 0.5
"""An evaluator that gave a method fewer than this share of the method's best covered evaluator's
cells is left out of its mean.
"""


def crossed(rows: pd.DataFrame, view: str | None = None) -> pd.DataFrame:
    """Return the measured rows of the crossed evaluators, of one view if it is given.

    A view is "embedding" or "logit".
    """
    found = measured(rows)
    found = found[is_crossed(found)]
    return found if view is None else found[found["view"] == view]


def normalised(rows: pd.DataFrame) -> pd.DataFrame:
    """Divide the scores of crossed rows by how far the score could fall.

    That is the mean fall of the encoder and evaluator.

    The mean is over sources, so that it is one number for all methods, clips and seeds: gains of
    encoders and fills become comparable and can be averaged, and no clip that hardly falls is
    divided by next to nothing, as it would be by its own fall (which is negative for some logits).
    Where no fall is stated the scores stay as they are; where its mean is not positive they are
    missing.
    """
    if not len(rows) or rows.fall.isna().all():
        return rows
    mean = rows[BY_EVALUATOR].join(mean_falls(rows).rename("mean"), on=BY_EVALUATOR)["mean"]
    return rows.assign(score=rows.score / mean.where(mean > 0))


def mean_falls(rows: pd.DataFrame) -> pd.Series:
    """Average how far scores fall when everything goes, by `BY_EVALUATOR`.

    Mean over clips, then over sources.
    """
    clips = rows.groupby([*BY_EVALUATOR, "source_group", "clip"], sort=False).fall.mean()
    return clips.groupby([*BY_EVALUATOR, "source_group"]).mean().groupby(BY_EVALUATOR).mean()


def without_a_fall(rows: pd.DataFrame) -> list[str]:
    """List what `normalised` leaves out, as "encoder on evaluator"."""
    if not len(rows) or rows.fall.isna().all():
        return []
    falls = mean_falls(rows)
    return [f"{encoder} on {metric}" for _, encoder, metric in falls.index[~(falls > 0)]]


def is_crossed(rows: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to the crossed design, measured or not."""
    return rows.metric.str.startswith(CROSSED) & (rows.granularity != "") & (rows.evaluator_fill != "")


def own_granularity(masks: str, base: str, stated: str = "") -> str:
    """Return the granularity that a method shares with evaluators, or "" if none.

    It is what the method's rows state, or what is known of its name.

    Examples
    --------
    >>> own_granularity("time_frequency", "RELAX-time_frequency")
    'patch'
    >>> own_granularity("", "Lime"), own_granularity("", "energy")
    ('patch', '')
    >>> own_granularity("blobs", "RELAX-blobs"), own_granularity("blobs", "RELAX-blobs", "bin")
    ('', 'bin')
    """
    return stated or OWN_GRANULARITY.get(masks, "") or OWN_GRANULARITY_OF_METHOD.get(base, "")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """Scores that are compared as one thing.

    Attributes
    ----------
    name
        As printed.
    rows
        Its measured rows, from `rows.checked`.
    smallest
        Differences within ± this do not matter.
    unit
        What the score is, in words.
    """

    name: str
    rows: pd.DataFrame
    smallest: float = float("nan")
    unit: str = ""
    twins: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twins", twins(self.rows))

    @cached_property
    def wide(self) -> pd.DataFrame:
        """Scores: one line a cell, columns (method, evaluator); what was not measured is NaN."""
        evaluator = self.rows.metric if self.single else self.rows.granularity + " / " + self.rows.evaluator_fill
        means = self.rows.assign(evaluator=evaluator).groupby([*CELL, "method", "evaluator"], sort=False).score.mean()
        return means.unstack(["method", "evaluator"])

    @property
    def single(self) -> bool:
        """True if it is one metric, not a crossed design."""
        return not bool(is_crossed(self.rows).all())

    @cached_property
    def methods(self) -> list[str]:
        """List all methods but twins."""
        return methods(self.rows)

    @cached_property
    def ranked(self) -> list[str]:
        """List the methods that compete."""
        return methods(self.rows, ranked=True)

    @cached_property
    def evaluators(self) -> list[str]:
        """Names of the evaluators, granularity / fill."""
        return list(dict.fromkeys(self.wide.columns.get_level_values("evaluator"))) if len(self.rows) else []

    @cached_property
    def own(self) -> dict[str, frozenset[str]]:
        """Method -> its own evaluators."""
        if self.single:
            return {method: frozenset() for method in self.rows.method.unique()}
        facts = self.rows.drop_duplicates("method")
        made = {}
        of_each = zip(facts.method, facts.base, facts.masks, facts.own_granularity, facts.fill, strict=True)
        for method, base, masks, stated, fill in of_each:
            granularity = own_granularity(masks, base.replace(" twin", ""), stated)
            made[method] = frozenset(e for e in self.evaluators if _shares(e, granularity, fill))
        return made

    def covered(self, method: str) -> list[str]:
        """Return the evaluators that measured the method on enough cells."""
        if not len(self.rows) or method not in self.own:
            return []
        counts = {e: self._counts.get((method, e), 0) for e in self.evaluators}
        return [e for e, count in counts.items() if count > 0 and count >= MANY * max(counts.values())]

    @cached_property
    def _counts(self) -> dict[Any, int]:
        return {column: int(count) for column, count in self.wide.notna().sum().items()}

    def foreign(self, *chosen: str) -> list[str]:
        """Return evaluators that measured all `chosen` methods and are nobody's own among them."""
        return [e for e in self.evaluators if all(e in self.covered(m) and e not in self.own[m] for m in chosen if m)]

    def level(self, method: str, minus_twin: bool = False, own: bool = False) -> pd.Series:
        """Average a method over its foreign evaluators (with `own`, its own), a number a source."""
        on = [e for e in self.covered(method) if e in self.own[method]] if own else self.foreign(method)
        return self.by_source(self.cells(method, on, minus_twin))

    @cached_property
    def _array(self) -> tuple[Any, dict[Any, int], Any, Any]:
        """`wide` as numbers, where its columns are, and each line's source by number and name."""
        names = self.wide.index.get_level_values("source_group")
        sources, number = np.unique(names.to_numpy(dtype=str), return_inverse=True)
        return self.wide.to_numpy(dtype=np.float64), {c: i for i, c in enumerate(self.wide.columns)}, sources, number

    def columns(self, method: str, on: Sequence[str]) -> Any:
        """Select scores of a method on the evaluators `on`, cells by evaluators.

        NaN where nothing was measured.
        """
        values, where, _, _ = self._array
        nothing = np.full(len(values), np.nan)
        return np.stack([values[:, where[method, e]] if (method, e) in where else nothing for e in on], axis=1)

    def cells(self, method: str, on: Sequence[str], minus_twin: bool) -> pd.Series:
        """Average over the evaluators `on`, one number a cell; NaN where one of them is missing."""
        import pandas as pd

        if not on:
            return pd.Series(np.nan, index=self.wide.index)
        scores = self.columns(method, on)
        if minus_twin:
            scores = scores - self.columns(self.twins[method], on)
        return pd.Series(scores.mean(axis=1), index=self.wide.index)

    def by_source(self, cells: pd.Series) -> pd.Series:
        """Average a source's cells, each counting once; sources without any are left out.

        `cells` are those of `wide`, in its order.
        """
        import pandas as pd

        _, _, sources, number = self._array
        values = cells.to_numpy(dtype=np.float64)
        there = np.isfinite(values)
        counts = np.bincount(number[there], minlength=len(sources))
        sums = np.bincount(number[there], values[there], minlength=len(sources))
        kept = counts > 0
        return pd.Series(sums[kept] / counts[kept], index=pd.Index(sources[kept], name="source_group"))

    def difference_of_cells(self, a: str, b: str, minus_twins: bool = False) -> tuple[pd.Series, list[str]]:
        """Return ``a - b`` by cell and the names of the evaluators it is over.

        Those that judged both and are foreign to both.

        With `minus_twins`, each side is taken minus its shuffled twin where both have one.
        """
        both = minus_twins and a in self.twins and b in self.twins
        on = self.foreign(a, b)
        return self.cells(a, on, both) - self.cells(b, on, both), on

    def difference(self, a: str, b: str, minus_twins: bool = False) -> tuple[pd.Series, list[str]]:
        """Return the difference of two methods, one number a source."""
        cells, evaluators = self.difference_of_cells(a, b, minus_twins)
        return self.by_source(cells), evaluators

    def advantage(self, method: str, adjusted: bool = False) -> pd.Series:
        """Subtract foreign from own evaluators by source; return nothing if either has none."""
        import pandas as pd

        own = [e for e in self.covered(method) if e in self.own[method]]
        foreign = self.foreign(method)
        if not own or not foreign:
            return self.by_source(pd.Series(np.nan, index=self.wide.index))
        scores = self.columns(method, own + foreign)
        if adjusted:
            scores = scores - self.expected[own + foreign].to_numpy()
        difference = scores[:, : len(own)].mean(axis=1) - scores[:, len(own) :].mean(axis=1)
        return self.by_source(pd.Series(difference, index=self.wide.index))

    @cached_property
    def expected(self) -> pd.DataFrame:
        """Average what methods foreign to an evaluator reach there: cells by evaluators."""
        import pandas as pd

        made = {}
        for e in self.evaluators:
            foreign = [m for m in self.ranked if e in self.foreign(m)]
            made[e] = self.wide[[(m, e) for m in foreign]].mean(axis=1) if foreign else np.nan
        return pd.DataFrame(made, index=self.wide.index)

    def effects(self) -> pd.DataFrame:
        """Score each competing method beside the others', evaluators' levels taken off.

        One column a method, one line a source that has them all.

        Least squares of ``score = method + evaluator`` over the cells foreign to the method, for
        each source; with one evaluator the plain scores. Methods without a foreign evaluator are
        left out.
        """
        import pandas as pd

        columns = [(m, e) for m in self.ranked for e in self.foreign(m)]
        if not columns:
            return pd.DataFrame()
        values = self.wide[columns].groupby("source_group").mean().dropna()
        names, evaluators = (list(dict.fromkeys(c[i] for c in columns)) for i in (0, 1))
        design = np.zeros((len(columns), len(names) + len(evaluators)))
        for row, (m, e) in enumerate(columns):
            design[row, names.index(m)] = design[row, len(names) + evaluators.index(e)] = 1
        if len(evaluators) == 1:
            design = design[:, : len(names)]
        solved = np.linalg.pinv(design) @ values.to_numpy().T
        level = solved[len(names) :].mean(axis=0) if len(evaluators) > 1 else 0.0
        return pd.DataFrame((solved[: len(names)] + level).T, index=values.index, columns=names)


def _shares(evaluator: str, granularity: str, fill: str) -> bool:
    its_granularity, its_fill = evaluator.split(" / ")
    return its_granularity == granularity or its_fill == fill


PARTS = {"MIF": "most_influential_first", "LIF": "least_influential_first"}
"""Part of a crossed evaluator's score -> column."""
BY = ["dataset", "encoder", "metric", "method"]


def areas(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Average both areas and their difference; empty where no parts were kept."""
    found = rows[is_crossed(rows) & rows.part.isin(PARTS) & (rows.status == "ok")]
    if found.empty:
        return []
    by_source = found.groupby([*BY, "source_group", "part"], sort=False).value.mean().unstack("part").dropna()
    means = by_source.groupby(BY, sort=False).mean().rename(columns=PARTS)[list(PARTS.values())]
    means["difference"] = means["least_influential_first"] - means["most_influential_first"]
    means["sources"] = by_source.groupby(BY, sort=False).size()
    return [{str(name): value for name, value in entry.items()} for entry in means.reset_index().to_dict("records")]
