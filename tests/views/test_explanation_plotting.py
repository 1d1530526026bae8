"""`Explanation.plot` and what a notebook shows: the map, on
the axes that it claims, and text where there is no picture.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import visualization
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from reference.models import rand, relu_encoder

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.views.explanation import MOST_SHOWN

Explained = tuple[torch.Tensor, rq.Explanation]


def explain(shape: tuple[int, ...], **options: Any) -> Explained:
    x = rand(*shape, dtype=torch.float32)
    encoder = relu_encoder(x[0].numel(), dtype=torch.float32)
    return x, rq.RELAX(encoder, **options).explain(x, n_samples=40)


@pytest.fixture(scope="module")
def explained() -> Explained:
    return explain((2, 1, 96, 64))


@pytest.fixture
def ax() -> Any:
    return Figure().subplots()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_map_lies_on_seconds_and_hz(explained: Explained, ax: Any) -> None:
    x, e = explained
    assert e.plot(rq.LogMel().describe(x), method="heat_map", ax=ax) is ax
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), e.centred()[:, 0].reshape(192, 64).T.numpy())
    assert image.get_extent() == [0, pytest.approx(1.92), -0.5, 63.5]
    assert (ax.get_xlabel(), ax.get_ylabel(), image.origin) == ("time (s)", "frequency (Hz)", "lower")
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["250", "500"]
    low, high = image.get_clim()
    assert low == -high


def test_with_the_input_the_map_is_laid_over_it(explained: Explained, ax: Any) -> None:
    x, e = explained
    e.plot(x, ax=ax, example=1, alpha_overlay=0.3, title="$robin")
    below, above = ax.images
    np.testing.assert_allclose(below.get_array(), x[1, 0].T)
    np.testing.assert_allclose(above.get_array(), e.centred()[1, 0].T)
    assert above.get_alpha() == 0.3
    assert ax.get_title() == "$robin"
    assert len(e.plot(x, ax=Figure().subplots(), method="original_image").images) == 1


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
@pytest.mark.parametrize("outlier_perc", [0, 2, 30])
def test_sign_and_scale_are_captums(explained: Explained, ax: Any, sign: str, outlier_perc: float) -> None:
    """The map that Captum draws, between -1 and 1, is ours over the upper end of our scale."""
    attr = explained[1].centred()[0, 0].T.numpy()[..., None]
    options = {"sign": sign, "outlier_perc": outlier_perc, "use_pyplot": False}
    _, axes = visualization.visualize_image_attr(attr, method="heat_map", **options)
    explained[1].plot(ax=ax, sign=sign, outlier_perc=outlier_perc, example=0)
    (image,) = ax.images
    found = np.clip(image.get_array() / image.get_clim()[1], -1, 1)
    np.testing.assert_allclose(found, axes.images[0].get_array(), atol=1e-6)


def test_every_map_can_be_drawn() -> None:
    _, e = explain((1, 1, 96, 64), estimator="surrogate", masks="time_frequency")
    for name in ("importance", "u_relax", "uncertainty", "standard_error", "cell_effects"):
        found = getattr(e, name)
        (image,) = e.plot(map=name, ax=Figure().subplots()).images
        np.testing.assert_allclose(image.get_array(), (found() if callable(found) else found)[0, 0].T)
    with pytest.raises(ArgumentError, match="map: expected a map that this explanation has, got 'cell_effects'"):
        explain((1, 1, 6, 4), estimator="weighted")[1].plot(map="cell_effects")


def test_without_axes_it_draws_into_pyplots(explained: Explained) -> None:
    figure = pyplot.figure()
    assert explained[1].plot().figure is figure


def test_plain_tensors_of_vggish_s_shape_are_not_taken_for_its_examples(explained: Explained, ax: Any) -> None:
    x, e = explained
    for given in (None, x):
        drawn = e.plot(given, ax=Figure().subplots())
        assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("frame", "band")
    for said in (rq.LogMel(), rq.LogMel()(torch.zeros(16_000)).axis):
        drawn = e.plot(x, axis=said, ax=Figure().subplots())
        assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("time (s)", "frequency (Hz)")
    assert b"PNG" in (e._repr_png_() or b"")


def test_other_spectrograms_count_frames_and_bands_unless_told(ax: Any) -> None:
    _, e = explain((1, 1, 10, 5))
    e.plot(ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("frame", "band")
    assert ax.images[0].get_extent() == [0, 10, -0.5, 4.5]
    axis = BinAxis(every_s=0.5, size=5, bins_hz=(0.0, 300.0, 500.0, 700.0, 900.0))
    other = e.plot(ax=Figure().subplots(), axis=axis)
    assert other.images[0].get_extent() == [0, 5, -0.5, 4.5]
    assert (other.get_xlabel(), other.get_ylabel()) == ("time (s)", "frequency (Hz)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "masked_image"}, "method: expected one of heat_map, blended_heat_map, original_image"),
        ({"sign": "both"}, "sign: expected one of all, positive"),
        ({"map": "importances"}, "map: expected one of importance, centred"),
        ({"method": "original_image"}, "x: expected the input for method='original_image'"),
        ({"x": torch.zeros(1, 1, 96, 64)}, "x: expected the explained input"),
        ({"example": 2}, "example: expected an index below 2"),
        ({"outlier_perc": 100}, "outlier_perc: expected a percentage"),
        ({"axis": BinAxis(size=63)}, "axis: expected 64 bands"),
    ],
)
def test_what_does_not_fit_is_refused(explained: Explained, ax: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentError, ShapeError), match=message):
        explained[1].plot(ax=ax, **options)


def picture(e: rq.Explanation) -> np.ndarray:
    found = e._repr_png_()
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(found)).convert("RGB"))


def test_notebook_shows_a_picture_and_numbers(explained: Explained) -> None:
    _, e = explained
    changed = dataclasses.replace(e, importance=e.importance.flip(2))
    assert (picture(e) != picture(changed)).mean() > 0.05
    text = e._repr_html_()
    assert text is not None
    assert text.startswith('<div><img alt="Importance less the mean similarity')
    assert "<th>masks</th><td>40</td>" in text
    assert f"<td>{float(e.mean_similarity.mean()):.3f}</td>" in text
    assert pyplot.get_fignums() == []


def test_notebook_shows_no_more_than_can_be_read(explained: Explained) -> None:
    e = explained[1]
    many = {
        name: value[:1].expand(MOST_SHOWN + 1, *value.shape[1:]) if isinstance(value, torch.Tensor) else value
        for name, value in ((f.name, getattr(e, f.name)) for f in dataclasses.fields(e))
    }
    text = rq.Explanation(**many)._repr_html_()
    assert text is not None
    assert f"<td>{MOST_SHOWN + 1}, drawn are the first {MOST_SHOWN}</td>" in text


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5), (1, 2, 6, 4), (1, 1, 3, 4, 2)])
def test_what_is_no_spectrogram_is_shown_as_text(shape: tuple[int, ...]) -> None:
    _, e = explain(shape)
    assert e._repr_html_() is None
    assert e._repr_png_() is None
    with pytest.raises(ShapeError, match=r"explanation: expected maps of shape \(B, 1, T, F\)"):
        e.plot()


def test_examples_without_an_explanation_are_drawn(explained: Explained, ax: Any) -> None:
    e = explained[1]
    unknown = dataclasses.replace(
        e, **{n: torch.full_like(getattr(e, n), torch.nan) for n in ("importance", "standard_error", "neutral")}
    )
    unknown.plot(ax=ax)
    assert ax.images[0].get_array().mask.all()
    assert unknown._repr_png_() is not None


def test_captums_viewer_takes_a_map(explained: Explained) -> None:
    """As docs/notebooks.md says: height, width, channels; frequency upwards."""
    x, e = explained
    attr, image = (np.flip(v[0, 0].T.numpy(), 0)[..., None] for v in (e.centred(), x))
    for method in ("heat_map", "blended_heat_map"):
        _, axes = visualization.visualize_image_attr(attr, image, method, sign="all", use_pyplot=False)
        shown = axes.images[-1].get_array()
        assert shown.shape == (64, 96)
        assert np.corrcoef(shown.ravel(), attr.ravel())[0, 1] > 0.99


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys; from relax_quantus.relax.explanation import Explanation; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
