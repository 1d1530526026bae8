"""The study of coverage: a small run of it, and that the page says what is stored."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks import calibration_study as study

ROOT = Path(study.__file__).parents[1]


def test_a_small_run_covers_and_goes_on_from_what_is_stored(tmp_path: Path) -> None:
    event = study.planted()[0]
    found = list(study.rows(event, "time", "smooth", 3000, {60: 12}, 2))
    assert [row.n_samples for row in found] == [60] * 24 + [0] * 4
    assert sum(row.share for row in found) / len(found) > 0.85
    assert all(row.reference < 0.3 for row in found if row.estimator == "weighted")
    path = tmp_path / "rows.parquet"
    pd.DataFrame([vars(row) for row in found]).to_parquet(path, index=False)
    assert study.stored(path) == found
    assert study.table(found).count("\n") == 5
    assert "| 60 | surrogate | 1 |" in study.summary(found)


def test_the_page_has_the_figures_that_are_stored() -> None:
    rows = pd.read_parquet(ROOT / "benchmarks/calibration_study.parquet")
    page = (ROOT / "docs/surrogate.md").read_text()
    rows["stratum"] = rows.kind + rows.strategy + rows.edges
    for (n, estimator), group in rows.groupby(["n_samples", "estimator"]):
        cells = []
        for kind in ("one event", "dense", "recordings"):
            strata = 100 * group[group.kind == kind].groupby("stratum")[["share", "top"]].mean()
            assert len(strata) == 8
            share, top = strata.share, strata.top
            cells += [
                f"{share.mean():.1f} [{share.min():.1f}, {share.max():.1f}]",
                f"{top.mean():.1f} [{top.min():.1f}]",
            ]
        assert f"| {n or 'tolerance'} | {estimator} | {' | '.join(cells)} |" in page
