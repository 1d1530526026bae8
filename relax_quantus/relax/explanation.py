"""Hold what RELAX says of a batch, frozen: `Explanation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch

if TYPE_CHECKING:
    from relax_quantus.frontend.examples import Axis
    from relax_quantus.frontend.log_mel import LogMel


@dataclass(frozen=True, eq=False)
class Explanation:
    """RELAX's result for a batch of inputs ``x`` of shape ``(B, ...)``.

    Parameters
    ----------
    importance
        Shaped like ``x``: the similarity that the embedding keeps when the bin is kept.
    uncertainty
        Shaped like ``x``: the variability of that similarity. It restates the importance in good
        part; how sure the *map* is says `standard_error`.
    standard_error
        Shaped like ``x``: of the importance, over the draw of the masks; it shrinks as 1/sqrt(N).
        NaN where the masks say nothing of it: under fewer than two masks, and where similarities do
        not vary under the masks that keep the bin.
    mean_similarity
        ``(B,)``: over all masks.
    fully_masked_similarity
        ``(B,)``: of the fill alone to the reference, s(x, all fill); ReLU embeddings are never far
        from one another, so a map's values are to be read against it. NaN where no encoder ran
        (`RELAX.estimate`).
    n_samples
        ``(B,)`` masks used.
    neutral
        Broadcastable to ``x``: the importance of every bin if none mattered, the mean similarity
        (for ``paper`` times the mean mask).
    estimator
        Name of the estimator that was used.
    cell_effects
        Shaped like ``x``, by ``surrogate`` only, else None: how much the similarity changes as one
        of the strategy's cells goes from replaced to kept, all others being equal. Free of the
        crosses that product masks leave in the importance; see
        `relax_quantus.relax.estimators.surrogate`.
    centred_standard_error
        Shaped like ``x``: of `centred`, what pictures draw. It is mostly smaller than
        `standard_error`, as an error of all bins alike does not enter it, and larger where one
        event decides. NaN where similarities do not vary at all, where the bin's masks do not, and
        for estimators that do not give it.
    compared_with_itself
        ``(B,)`` bool: whether masked copies were compared with the example's own embedding, not
        with a ``reference``.
    null_maxima, null_statistic
        ``(B, P)`` ascending and ``(B,)``, with ``explain(null=True)`` only, else None: the largest
        ``|centred|`` / its error over an example's bins, under P permutations of the similarities
        and as they are; see `relax_quantus.relax.estimation`.
    """

    importance: Tensor
    uncertainty: Tensor
    standard_error: Tensor
    mean_similarity: Tensor
    fully_masked_similarity: Tensor
    n_samples: Tensor
    neutral: Tensor
    estimator: str
    cell_effects: Tensor | None = None
    centred_standard_error: Tensor = field(default_factory=lambda: torch.tensor(torch.nan, device="cpu"))
    compared_with_itself: Tensor = field(default_factory=lambda: torch.tensor(True, device="cpu"))
    null_maxima: Tensor | None = None
    null_statistic: Tensor | None = None

    def __post_init__(self) -> None:
        whole = self.centred_standard_error.to(self.importance).expand_as(self.importance)
        object.__setattr__(self, "centred_standard_error", whole)
        itself = self.compared_with_itself.to(self.mean_similarity.device).expand(self.mean_similarity.shape)
        object.__setattr__(self, "compared_with_itself", itself)

    @classmethod
    def concatenate(cls, explanations: Sequence[Explanation]) -> Explanation:
        """Join explanations of successive examples, all of one estimator."""
        first = explanations[0]
        if len(explanations) == 1:
            return first
        values = {f.name: [getattr(e, f.name) for e in explanations] for f in fields(cls)}
        joined: dict[str, Any] = {name: torch.cat(v) for name, v in values.items() if isinstance(v[0], Tensor)}
        return replace(first, **joined)

    @neutral_torch()
    def u_relax(self) -> Tensor:
        """Return the importance where the uncertainty is low, 0 elsewhere: U-RELAX.

        Low is at or below the example's median (Wickstrom et al., IJCV 2023).
        """
        median = self.uncertainty.flatten(1).median(dim=1).values
        return self.importance * (self.uncertainty <= self._per_example(median))

    def centred(self) -> Tensor:
        """Return the importance minus `neutral`, its value if no bin mattered.

        Positive where keeping the bin keeps the embedding; the form for metrics and pictures, as
        importance itself lies in a narrow band high above 0.
        """
        return self.importance - self.neutral

    @neutral_torch()
    def z(self) -> Tensor:
        """Return the centred importance over its standard error; NaN where the error is unknown."""
        return self.centred() / self.centred_standard_error

    @neutral_torch()
    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the lower and upper bound of the centred map, shaped like ``x``.

        They are Student's t with N - 1 degrees of freedom times the standard error away from it.

        Parameters
        ----------
        level
            Share of draws of the masks in which a bin's interval holds the map of infinitely many
            masks, for one bin at a time.
        """
        from scipy.stats import t

        checks.fraction("level", level)
        freedom = (self.n_samples - 1).clamp_min(1).cpu().numpy()
        quantile = torch.as_tensor(t.ppf((1 + level) / 2, freedom)).to(self.centred_standard_error)
        centred, reach = self.centred(), self._per_example(quantile) * self.centred_standard_error
        return centred - reach, centred + reach

    @neutral_torch()
    def null(self, level: float = 0.05) -> Tensor:
        """Return what ``|z|`` exceeds by chance alone in a share `level` of cases, ``(B,)``.

        The family-wise threshold: similarities are permuted over the masks, which takes away what
        masks and similarities have to do with each other, and the largest ``|centred|`` / error
        over all bins is noted each time. Infinite where the permutations are too few for the level;
        NaN unless explained with ``null=True``.

        Raises
        ------
        ArgumentError
            If `level` is not between 0 and 1.
        """
        checks.fraction("level", level)
        if self.null_maxima is None:
            return torch.full_like(self.mean_similarity, torch.nan)
        permutations = self.null_maxima.shape[1]
        exceeding = int(level * (permutations + 1) + 1e-9)
        if exceeding == 0:
            return torch.full_like(self.mean_similarity, torch.inf)
        return self.null_maxima[:, permutations - exceeding]

    @property
    @neutral_torch()
    def p_value(self) -> Tensor:
        """Return the share of permutations whose largest ``|z|`` reaches the example's, ``(B,)``.

        (1 + b) / (1 + P) for b of P permutations, with the statistic of `weighted` whatever
        estimator drew the map (Phipson and Smyth, "Permutation P-values should never be zero",
        2010). A small one says that the network reacts to the masks, not that a part matters by
        much. NaN unless explained with ``null=True``.
        """
        if self.null_maxima is None or self.null_statistic is None:
            return torch.full_like(self.mean_similarity, torch.nan)
        reached = (self.null_maxima >= self.null_statistic[:, None]).sum(1)
        share = (1 + reached) / (1 + self.null_maxima.shape[1])
        return share.to(self.mean_similarity).masked_fill(self.null_statistic.isnan(), torch.nan)

    @property
    def hears_nothing(self) -> Tensor:
        """Tell whether the fill alone is as similar to the reference as copies are, ``(B,)`` bool.

        Then masks take nothing away that the network would miss, and what the map shows is not what
        it hears. False where the fill's similarity is unknown, and where copies were compared with
        something else than the example itself: the fill may well be nearer to that.
        """
        return (self.fully_masked_similarity >= self.mean_similarity) & self.compared_with_itself

    @neutral_torch()
    def spearman(self) -> Tensor:
        """Return Spearman's rank correlation ``(B,)`` of uncertainty and importance.

        NaN where either is constant over the example's bins.

        Near +-1, the uncertainty restates the importance and says nothing of its own.
        """
        from scipy.stats import rankdata

        pairs = (
            torch.from_numpy(rankdata(v.flatten(1).double().cpu(), axis=1)) for v in (self.uncertainty, self.importance)
        )
        first, second = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in pairs)
        correlation = (first * second).sum(1) / (first.square().sum(1) * second.square().sum(1)).sqrt()
        return correlation.to(self.mean_similarity)

    def plot(
        self,
        x: Tensor | None = None,
        *,
        map: str = "centred",
        method: str | None = None,
        sign: str = "all",
        example: int | None = None,
        axis: Axis | LogMel | None = None,
        ax: Any = None,
        cmap: str | None = None,
        alpha_overlay: float = 0.5,
        outlier_perc: float = 2,
        show_colorbar: bool = True,
        title: str | None = None,
    ) -> Any:
        """Draw the explanation of spectrograms into matplotlib axes, with seconds and Hz on them.

        `method`, `sign`, `cmap`, `alpha_overlay`, `outlier_perc`, `show_colorbar` and `title` are
        named as in ``captum.attr.visualization.visualize_image_attr`` and mean the same.

        Parameters
        ----------
        x
            The input ``(B, 1, T, F)`` that was explained; an explanation does not hold it.
        map
            ``"centred"``, ``"importance"``, ``"u_relax"``, ``"uncertainty"``, ``"standard_error"``,
            ``"centred_standard_error"`` or ``"cell_effects"``.
        method
            ``"heat_map"``, the map alone (default without `x`); ``"blended_heat_map"``, over the
            spectrogram (default with `x`); ``"original_image"``, the spectrogram alone.
        sign
            Of centred importance and cell effects: ``"all"``, ``"positive"``, ``"negative"`` or
            ``"absolute_value"``.
        example
            Draw this one alone; all of them end to end by default.
        axis
            What the axes stand for, or the `LogMel` that made `x`; by default what `x` says of
            itself if it is `relax_quantus.frontend.Examples`, else frames and bands are counted.
        ax
            matplotlib axes; pyplot's current ones by default.
        cmap
            A matplotlib colour map; by default one that suits the map and sign.
        alpha_overlay
            Opacity of the map over the spectrogram.
        outlier_perc
            The scale ends where the sorted magnitudes add up to 100 less this percentage of their
            sum. Importance and U-RELAX, which lie in a narrow band high above 0, always span their
            own range.
        show_colorbar
            Draw one, in the map's units.
        title
            Above the axes, drawn as plain text.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn on.

        Raises
        ------
        ArgumentError, ShapeError
            For an unknown name, or maps that are no spectrograms.
        """
        options = {"map": map, "method": method, "sign": sign, "example": example, "axis": axis, "ax": ax, "cmap": cmap}
        options |= {"alpha_overlay": alpha_overlay, "outlier_perc": outlier_perc, "show_colorbar": show_colorbar}
        return _plotting().plot(self, x, **options, title=title)

    def _repr_png_(self) -> bytes | None:
        """Return what a notebook shows; None, and so the text, where there is no spectrogram."""
        found: bytes | None = _plotting().png(self)
        return found

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows; None, and so the text, where there is no spectrogram."""
        found: str | None = _plotting().as_html(self)
        return found

    def _per_example(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (self.importance.ndim - 1))

    def __repr__(self) -> str:
        low, high = (float(f(self.importance)) for f in (torch.min, torch.max))
        return (
            f"Explanation({tuple(self.importance.shape)}, estimator={self.estimator!r}, "
            f"importance {low:.3g} to {high:.3g}, n_samples {self.n_samples.tolist()})"
        )


def _plotting() -> Any:
    """Import the views, upwards and only when something is drawn: matplotlib is slow to load."""
    from relax_quantus.views import explanation as explanation_plotting

    return explanation_plotting
