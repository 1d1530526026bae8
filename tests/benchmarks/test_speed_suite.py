"""The speed suite: its statistics on known numbers, its peers, and
that page and JSON hold what was measured. Nothing here judges a time.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import relax_quantus as rq
from benchmarks.speed import captum_peers, command, networks, official_package, rounds
from benchmarks.speed.captum_peers import cells, counted, neighbours, occlusion_sizes
from benchmarks.speed.convergence import Converged, masks_needed, relative_squared_errors, relative_to
from benchmarks.speed.equal_error import ERROR, GAIN, SPEED, equal_error
from benchmarks.speed.memory import memory
from benchmarks.speed.official import official
from benchmarks.speed.page import page
from benchmarks.speed.record import Record
from benchmarks.speed.rounds import Arm, NotAvailableError, interleave
from benchmarks.speed.rows import FAILED, MEASURED, SKIPPED, Aim, Row, ratios, summary
from benchmarks.speed.settings import Settings

TINY = Settings(
    n_samples=12,
    repeats=2,
    encoders=("plain",),
    masks=("time",),
    estimators=("weighted",),
    batch=2,
    clips=1,
    error_sizes=(4, 8),
    error_repeats=2,
    reference_masks=64,
    memory_sizes=(20, 300),
    memory_repeats=1,
)


class Clock:
    """A time that only arms move."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, ""

    def arm(self, name: str, *seconds: float, forwards: int = 1, aim: Aim | None = None) -> Arm:
        """An arm whose runs take these times in turn, the first being the untimed one."""
        times = iter(seconds)

        def run() -> None:
            self.order += name
            self.now += next(times)

        return Arm({"arm": name}, run, forwards, aim=aim)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rounds, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def quick_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SCAN_S", 0.0)
    monkeypatch.setattr(networks, "MICRO_BATCHES", {"cpu": (2, 4)})


@pytest.fixture
def without_relax_xai(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = types.SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr(official_package.importlib, "util", finder)


@pytest.fixture
def relax_xai() -> types.ModuleType:
    try:
        return official_package.load()
    except NotAvailableError as missing:
        pytest.skip(str(missing))


def test_arms_run_in_turn_every_second_round_in_reverse(clock: Clock) -> None:
    interleave([clock.arm("A", *[1] * 5), clock.arm("B", *[1] * 5)], 4)
    assert clock.order == "AB" + "AB" + "BA" + "AB" + "BA"


def test_ratios_are_taken_within_a_round(clock: Clock) -> None:
    """Medians of the times would give 20 / 2; the machine was slow in round two."""
    timed = interleave([clock.arm("A", 9, 4, 40, 20, forwards=2), clock.arm("B", 9, 1, 10, 2)], 3)
    row = timed.row("s", "q", 0, 1)
    assert row.values == pytest.approx((2.0, 2.0, 5.0))
    assert row.seconds == pytest.approx((4, 40, 20))
    assert row.base_seconds == pytest.approx((1, 10, 2))
    assert timed.row("s", "q", 0, 1, faster=True).values == pytest.approx((0.5, 0.5, 0.2))


def test_an_arm_that_cannot_run_is_a_row_with_its_reason(clock: Clock) -> None:
    def absent() -> None:
        raise NotAvailableError("not installed: install it")

    def broken() -> None:
        raise ValueError("no")

    arms = [Arm({"arm": "absent"}, absent), clock.arm("B", *[1] * 3), Arm({"arm": "broken"}, broken)]
    timed = interleave(arms, 2)
    rows = [timed.row("s", "q", index, 1) for index in range(3)]
    assert [(r.status, r.reason) for r in rows] == [
        (SKIPPED, "not installed: install it"),
        (MEASURED, ""),
        (FAILED, "ValueError: no"),
    ]
    assert timed.row("s", "q", 1, 0).reason == "not installed: install it", "a base that is missing leaves no ratio"
    assert clock.order == "BBB"


def test_summary_of_known_numbers() -> None:
    found = summary([5.0, 1.0, 2.0, 4.0, 3.0, float("nan")])
    assert found == {
        "count": 5,
        "median": 3,
        "lower_quartile": 2,
        "upper_quartile": 4,
        "minimum": 1,
        "maximum": 5,
    }
    assert summary([float("nan")]) is None
    assert ratios([3.0], [2.0], (3, 4)) == (2.0,)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("kind", "median", "met"), [("at most", 1.1, True), ("at most", 1.2, False), ("at least", 1.0, False)]
)
def test_an_aim_is_judged_by_the_median(kind: str, median: float, met: bool) -> None:
    row = Row("s", "q", {}, (median, 0.0, 9.0), aim=Aim(kind, 1.1)).to_json()
    assert row["aim"]["met"] is met


def test_errors_are_free_of_the_references_noise() -> None:
    """A map of variance 4 over bins; estimates with variance 1,
    references with variance 2: the error is 1/4 of the spread squared.
    """
    draw = np.random.default_rng(0).standard_normal
    bins = 40_000
    truth = 2 * draw(bins)
    runs = [torch.from_numpy(truth + math.sqrt(2) * draw(bins)) for _ in range(4)]
    converged = Converged.from_runs(runs)
    assert converged.noise == pytest.approx(0.5, rel=0.03)
    assert converged.spread_squared == pytest.approx(4, rel=0.03)
    estimates = [torch.from_numpy(truth + draw(bins)) for _ in range(3)]
    assert relative_squared_errors(estimates, converged) == pytest.approx(0.25, rel=0.05)


def test_masks_needed_for_an_error() -> None:
    assert masks_needed({250: [4.0], 1000: [1.0, 1.0], 3000: [0.3]}) == 1000
    assert masks_needed({100: [4.0], 1600: [0.25]}) == 400, "log-linear between sizes"
    assert masks_needed({100: [16.0, 8.0, 8.0]}) == 800, "1/N above the largest, for the median clip"
    assert masks_needed({100: [0.1], 200: [0.05]}) == 100, "nothing is assumed below the smallest"
    assert masks_needed({100: [float("nan")], 200: [3.0]}) == 600
    assert relative_to([4.0, -1.0], [2.0, 1.0])[0] == 2
    assert math.isnan(relative_to([4.0, -1.0], [2.0, 1.0])[1])


def test_official_masks_give_the_official_map(relax_xai: types.ModuleType) -> None:
    encoder = networks.plain(0).model
    x = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    seed = int(torch.randint(1 << 62, (), generator=torch.Generator().manual_seed(3)))
    theirs = official_package.explain(encoder, x, 200, seed)
    ours = rq.RELAX(encoder, official_package.OfficialMasks(), estimator="weighted").attribute(x, n_samples=200, seed=3)
    torch.testing.assert_close(ours[0, 0], theirs, rtol=0, atol=1e-5)
    assert float(theirs.std()) > 1e-4


def test_the_stand_in_for_torchvision_does_not_stay(relax_xai: types.ModuleType) -> None:
    import importlib.util
    import sys

    assert importlib.util.find_spec("torchvision") is not None or "torchvision" not in sys.modules


@pytest.mark.usefixtures("without_relax_xai", "quick_scan")
def test_without_relax_xai_there_are_rows_that_say_so() -> None:
    for section in (official, equal_error):
        rows = list(section(TINY))
        assert rows
        assert {row.status for row in rows} == {SKIPPED}
        assert all("pip install --no-deps relax_xai==0.0.5" in row.reason for row in rows)


def test_what_the_package_does_not_have_yet_is_skipped() -> None:
    rows = list(memory(replace(TINY, estimators=("clairvoyant",))))
    assert [row.labels["encoder"] for row in rows] == ["pooling", "vggish_mini"]
    assert {row.status for row in rows} == {SKIPPED}
    assert {row.reason for row in rows} == {"this version of relax_quantus has no estimator 'clairvoyant'"}


def test_the_forwards_alone_are_as_many_as_asked_for(quick_scan: None) -> None:
    sizes: list[int] = []

    class Counting(torch.nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    floor = networks.best_floor(Counting(), torch.randn(1, 1, 8, 8), 100)
    assert {(e["memory_format"], e["micro_batch"]) for e in floor.scan} == {
        (name, size) for name in networks.FORMATS for size in (2, 4)
    }
    finalists = [e for e in floor.scan if "final_ms" in e]
    assert min(finalists, key=lambda e: e["final_ms"])["micro_batch"] == floor.micro_batch
    sizes.clear()
    floor.run(7)
    assert sum(sizes) == 7
    assert max(sizes) == floor.micro_batch


def test_captums_methods_get_the_forwards_they_should(quick_scan: None) -> None:
    loaded = networks.plain(0)
    x = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    floor = networks.best_floor(loaded.model, x, 4)
    arms = {arm.labels["method"]: arm.forwards for arm in captum_peers.peers(loaded, x, 60, floor)}
    assert arms["FeatureAblation"] == 60
    assert abs(arms["KernelShap"] - 60) <= 2
    assert abs(arms["Occlusion"] - 60) <= 10
    assert int(cells(x).max()) == 48
    assert len(neighbours(x, 29).unique()) == 29
    window, strides = occlusion_sizes((1, 96, 64), 60)
    axes = zip((96, 64), window[1:], strides[1:], strict=True)
    assert window == (1, 14, 10)
    assert arms["Occlusion"] == math.prod(math.ceil((size - w) / stride) + 1 for size, w, stride in axes) + 1
    assert counted(lambda forward: forward(x), lambda rows: rows) == 1


def test_equal_error_holds_errors_gains_and_speeds(relax_xai: types.ModuleType) -> None:
    rows = list(equal_error(replace(TINY, n_samples=8)))
    found = {
        quantity: [r for r in rows if r.quantity == quantity and r.status == MEASURED]
        for quantity in (ERROR, GAIN, SPEED)
    }
    assert {(r.labels["masks"], r.labels["N"]) for r in found[ERROR]} == {
        ("relax_xai's own", "4"), ("relax_xai's own", "8"), ("time", "4"), ("time", "8"),
    }  # fmt: skip
    assert {r.labels["N"] for r in found[GAIN]} == {"4", "8"}
    speed = found[SPEED][0]
    assert speed.details["official_masks"] == 8
    assert speed.details["masks"] >= 4
    assert speed.values == pytest.approx(ratios(speed.base_seconds, speed.seconds), rel=1e-9)


def test_memory_is_measured_in_fresh_processes() -> None:
    row = next(memory(TINY))
    assert row.status == MEASURED, row.reason
    assert row.labels["N"] == "300 over 20"
    assert row.values[0] == pytest.approx(row.details["peak_mib"][0] / row.details["peak_mib_few"][0])
    assert 50 < row.details["before_the_call_mib"][0] <= row.details["peak_mib"][0] < 5000


def test_a_killed_run_keeps_what_it_had_and_what_was_there(tmp_path: Path) -> None:
    def row(value: float) -> Row:
        return Row("overhead", "a ratio", {"encoder": "e"}, (value,), (2.0,), (1.0,), Aim("at most", 1.1))

    def killed() -> Iterator[Row]:
        yield row(7.0)
        raise KeyboardInterrupt

    Record(tmp_path, "first").section("overhead", TINY, iter([row(1.05)]))
    with pytest.raises(KeyboardInterrupt):
        Record(tmp_path, "second").section("overhead", TINY, killed())
    with pytest.raises(KeyboardInterrupt):
        Record(tmp_path, "third").section("memory", TINY, killed())
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["sections"]["overhead"]["rows"][0]["values"] == [1.05]
    assert results["unfinished"]["overhead"]["rows"][0]["values"] == [7.0]
    written = page(results)
    assert "**1.050**" in written
    assert written.count("Unfinished") == 1, "a section measured before is shown as it was"
    assert "| at most 1.1 | yes |" in written
    assert "| at most 1.1 | no |" in written


@pytest.mark.usefixtures("quick_scan")
def test_the_command_writes_figures_and_page(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    options = "--n-samples 8 --repeats 2 --encoders plain --masks time --estimators weighted --batch 2 --threads 1"
    try:
        command.main([*options.split(), "--only", "overhead", "captum", "gpu", "--out", str(tmp_path / "figures")])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    results = json.loads((tmp_path / "figures" / "results.json").read_text())
    assert list(results["sections"]) == ["overhead", "captum", "gpu"]
    assert not results["unfinished"]
    overhead = results["sections"]["overhead"]
    assert overhead["machine"]["torch_threads"] == overhead["settings"]["threads"] == 1
    assert overhead["machine"]["cpu"]
    assert overhead["machine"]["versions"]["torch"] == torch.__version__
    labels = {tuple(row["labels"].values()) for row in overhead["rows"]}
    warm = {("plain", n, "time", "weighted", "warm", f) for n in "12" for f in ("as it is", "folded by hand")}
    assert labels == warm | {("plain", "1", "time", "weighted", "first", f) for f in ("as it is", "folded by hand")}
    for row in overhead["rows"]:
        assert row["status"] == MEASURED, row["reason"]
        assert len(row["values"]) == len(row["seconds"]) == len(row["base_seconds"]) == 2
        assert row["details"]["floor"]["scan_ms"]
        assert row["details"]["plan"]["precision"] == "float32"
    written = (tmp_path / "figures" / "speed.md").read_text()
    assert "python -m benchmarks.speed --n-samples 8 --repeats 2" in written
    assert str(tmp_path) not in written
    for text in ("KernelShap", "FeatureAblation", "Occlusion", "RELAX-time, weighted", "quartiles", "1 threads"):
        assert text in written
    if not torch.cuda.is_available():
        assert "- skipped, no CUDA device on this machine: cuda" in written


def test_options_beat_quick_and_quick_beats_defaults() -> None:
    quick = command.settings_of(command.parser().parse_args(["--quick", "--repeats", "5", "--masks", "time"]))
    assert (quick.repeats, quick.masks) == (5, ("time",))
    assert quick.n_samples < Settings().n_samples
    assert command.settings_of(command.parser().parse_args([])) == Settings()
