"""Pictures: what is drawn where, on which scale, and that nothing global is touched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from torch import Tensor

from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.log_mel import LogMel, LogMelAxis, LogMelConfig
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views import maps as plotting
from relax_quantus.views.thresholds import standing_out


def made_up(x: Tensor, scale: float = 1.0, mean: float = 0.8) -> Explanation:
    """An explanation with importance `mean` plus `scale` times
    x, an error of the same size, and a tenth of it when centred.
    """
    return Explanation(
        importance=mean + scale * x,
        uncertainty=x * 0,
        standard_error=scale * x.abs(),
        centred_standard_error=0.1 * scale * x.abs(),
        mean_similarity=torch.full((len(x),), mean),
        fully_masked_similarity=torch.full((len(x),), 0.4),
        n_samples=torch.full((len(x),), 10),
        neutral=torch.full((len(x), 1, 1, 1), mean),
        estimator="weighted",
    )


def panel() -> object:
    return Figure().add_subplot()


def maps_of(figure: Figure, ending: str) -> list[object]:
    """The panels with a map whose title names them so."""
    return [ax for ax in figure.axes if ending in ax.get_title()]


def test_end_to_end_keeps_time_order_and_frequency_upward() -> None:
    x = torch.arange(2 * 3 * 4.0).reshape(2, 1, 3, 4)
    image = plotting.end_to_end(x)
    assert image.shape == (4, 6)
    for n in range(2):
        for t in range(3):
            for f in range(4):
                assert image[f, 3 * n + t] == x[n, 0, t, f]


@pytest.mark.parametrize("shape", [(96, 64), (1, 2, 96, 64), (0, 1, 96, 64)])
def test_end_to_end_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"examples: expected shape \(n, 1, T, F\)"):
        plotting.end_to_end(torch.zeros(shape))


@pytest.mark.parametrize("hz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_drawn_at_its_frequency_and_time(hz: float) -> None:
    time_s = torch.arange(2 * 15_600) / 16_000
    wave = torch.sin(2 * torch.pi * hz * time_s) * ((time_s > 1.2) & (time_s < 1.5))
    ax = panel()
    image = plotting.plot_spectrogram(ax, LogMel()(wave))
    left, right, bottom, top = image.get_extent()
    assert (left, bottom) == (0.0, -0.5)
    assert right == pytest.approx(1.92)
    assert image.origin == "lower"
    assert ax.get_ylim() == (bottom, top)
    values = np.asarray(image.get_array())
    band, frame = np.unravel_index(values.argmax(), values.shape)
    assert band == pytest.approx(float(LogMelAxis().band_of_hz(hz)), abs=0.8)
    assert 1.15 < left + (frame + 0.5) * (right - left) / values.shape[1] < 1.55


def test_ticks_stand_at_their_bands() -> None:
    ax = panel()
    plotting.plot_spectrogram(ax, LogMel().describe(torch.zeros(1, 1, 96, 64)))
    centres = LogMelConfig().band_centres_hz
    for position, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
        assert np.interp(position, np.arange(64), centres) == pytest.approx(float(label.get_text()), rel=0.01)
    np.testing.assert_allclose(LogMelAxis().band_of_hz(centres), np.arange(64), atol=1e-9)


def test_times_are_window_centres_from_the_start() -> None:
    times = LogMelAxis(start_s=10.0).times_s(97)
    assert times[0] == pytest.approx(10.0125)
    assert times[96] == pytest.approx(10.9725)


def test_shared_limit_ignores_nan_and_is_never_zero() -> None:
    nan = torch.tensor([torch.nan, -0.5])
    assert plotting.shared_limit([nan, np.array([0.25, np.inf])]) == 0.5
    assert plotting.shared_limit([torch.zeros(3)]) > 0
    assert plotting.shared_limit([torch.full((2,), torch.nan)]) > 0


def test_a_figure_has_every_strategy_on_one_scale() -> None:
    x = LogMel().describe(torch.linspace(-1, 1, 96 * 64).reshape(1, 1, 96, 64))
    figure = plotting.explanation_figure(x, {"weak": made_up(x, 0.01, 0.9), "strong": made_up(x, 0.3, 0.5)}, title="t")
    importance, error = maps_of(figure, "importance"), maps_of(figure, "standard error")
    assert [ax.get_title().split(":")[0] for ax in importance] == ["weak", "strong"]
    assert len(error) == 2
    for ax in importance:
        assert ax.images[0].get_clim() == pytest.approx((-0.3, 0.3))
    for ax in error:
        assert ax.images[0].get_clim() == pytest.approx((0.0, 0.03))
    np.testing.assert_allclose(importance[0].images[0].get_array(), 0.01 * plotting.end_to_end(x), atol=1e-6)
    assert "(0.90): -0.01 to 0.01" in importance[0].get_title()
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert any("importance - mean similarity" in label for label in labels)
    assert any("standard error of that, one scale" in label for label in labels)
    assert "ln(mel magnitude + 0.01)" in labels
    assert figure.get_suptitle() == "t"


def test_the_line_runs_around_what_stands_out(hears_a_corner: Explanation) -> None:
    e, x = hears_a_corner, LogMel().describe(torch.ones(2, 1, 96, 64))
    deaf = dataclasses.replace(e, fully_masked_similarity=e.mean_similarity)
    drawn = {"a": e, "deaf": deaf, "not asked": dataclasses.replace(e, null_maxima=None)}
    first, deaf_panel, not_asked = maps_of(plotting.explanation_figure(x, drawn), "importance")
    (line,) = [c for c in first.collections if isinstance(c, ContourSet)]
    bins = plotting.end_to_end(standing_out(e).bins) > 0
    frames = np.flatnonzero(bins.any(axis=0))
    corners = np.concatenate([path.vertices for path in line.get_paths()])
    assert corners[:, 0].min() == pytest.approx(0.01 * frames[0], abs=1e-6)
    assert corners[:, 0].max() == pytest.approx(0.01 * (frames[-1] + 1), abs=1e-6)
    assert not deaf_panel.collections
    assert not not_asked.collections
    assert [t.get_text() for t in deaf_panel.texts] == ["this network hears nothing here; nothing stands out"]
    assert not first.texts
    assert not not_asked.texts
    many = dataclasses.replace(
        e,
        **{
            f.name: getattr(e, f.name).repeat(11, *[1] * (getattr(e, f.name).ndim - 1))
            for f in dataclasses.fields(e)
            if isinstance(getattr(e, f.name), torch.Tensor)
        },
    )
    assert not maps_of(plotting.explanation_figure(x.repeat(11, 1, 1, 1), {"a": many}), "importance")[0].collections


def test_errors_are_those_of_what_is_drawn_and_unknown_ones_are_hatched() -> None:
    x = torch.linspace(-1, 1, 96 * 64).reshape(1, 1, 96, 64)
    error = torch.full_like(x, 0.2)
    error[..., :10] = torch.nan
    e = dataclasses.replace(made_up(x), centred_standard_error=error)
    (panel,) = maps_of(plotting.explanation_figure(x, {"a": e}), "standard error")
    shown = panel.images[0].get_array()
    assert np.ma.getmaskarray(shown)[:10].all()
    np.testing.assert_allclose(shown[10:], 0.2)
    assert panel.patch.get_hatch()
    assert "grey: unknown" in panel.get_title()


def test_unknown_parts_are_blank(tmp_path: Path) -> None:
    x = torch.rand(2, 1, 96, 64)
    broken = x.clone()
    broken[0] = torch.nan
    figure = plotting.explanation_figure(x, {"half": made_up(broken), "none": made_up(x * torch.nan)})
    half, none = maps_of(figure, "importance")
    drawn = np.ma.getmaskarray(half.images[0].get_array())
    assert drawn[:, :96].all()
    assert not drawn[:, 96:].any()
    assert "unknown" in none.get_title()
    plotting.save_png(figure, tmp_path / "a.png")


def test_no_text_is_cut_off_or_drawn_over_another() -> None:
    x = torch.randn(1, 1, 96, 64)
    names = ("random", "time", "frequency", "time_frequency")
    figure = plotting.explanation_figure(x, {n: made_up(x, -0.001234) for n in names}, title="a" * 60, notes="n\n" * 7)
    figure.canvas.draw()
    texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label)] + figure.texts
    boxes = [t.get_window_extent() for t in texts if t.get_text().strip()]
    width, height = figure.canvas.get_width_height()
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for i, one in enumerate(boxes):
        assert not any(one.shrunk(0.98, 0.98).overlaps(other) for other in boxes[i + 1 :])


def test_a_long_clip_gets_a_wider_picture_but_not_without_end() -> None:
    widths = [plotting.Layout.of(n, 5).width_in for n in (1, 10, 60, 4000)]
    assert widths[0] < widths[1] < widths[2] == widths[3] < 35


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ArgumentError, match="explanations: expected at least one"):
        plotting.explanation_figure(torch.zeros(1, 1, 96, 64), {})


def test_titles_are_plain_text(tmp_path: Path) -> None:
    x = torch.rand(1, 1, 96, 64)
    figure = plotting.explanation_figure(x, {"$x": made_up(x)}, title="$\\frac{ $ \u4e2d", notes="$a$ $")
    assert plotting.save_png(figure, tmp_path / "a.png").stat().st_size > 1000


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"older")

    def half(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", half)
        with pytest.raises(OSError, match="No space left"):
            plotting.save_png(Figure(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"older"
    plotting.save_png(Figure(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_inputs_are_left_alone() -> None:
    x = torch.rand(1, 1, 96, 64)
    e = made_up(x)
    before = [t.clone() for t in (x, e.importance, e.standard_error)]
    plotting.explanation_figure(x, {"a": e})
    for one, other in zip((x, e.importance, e.standard_error), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_pyplot_keeps_nothing(tmp_path: Path) -> None:
    x = torch.rand(1, 1, 96, 64)
    settings = dict(matplotlib.rcParams)
    plotting.save_png(plotting.explanation_figure(x, {"a": made_up(x)}), tmp_path / "a.png")
    assert not pyplot.get_fignums()
    assert dict(matplotlib.rcParams) == settings
    assert "pyplot" not in Path(plotting.__file__).read_text().split('"""', 2)[2]
