"""The page of an explanation: what it carries, and what it refuses."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from io import BytesIO

import html5lib
import numpy as np
import pytest
import soundfile
import torch
from explanation_pages import HOSTILE, companions, explanation, layers, payload

from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.axes import COUNTED, BinAxis
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.page import Entry, Layer, index_page, page
from relax_quantus.views.page import sounds as page_sounds
from relax_quantus.views.page.packing import UNKNOWN, packed

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Checker(HTMLParser):
    """Collects unbalanced tags, attributes that load something, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.uses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.wrong.append(f"{tag}: twice the same attribute")
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name in ("for", "aria-labelledby", "aria-describedby"):
                self.uses += (value or "").split()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker


def test_page_is_well_formed_and_loads_nothing(html: str) -> None:
    found = check(html)
    assert (found.open, found.wrong) == ([], [])
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.uses) <= set(found.ids)
    assert found.loads
    assert all(value.startswith("data:") for value in found.loads)
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", html.replace("data:", ""))


@pytest.mark.parametrize("which", ["page", "plain page", "index"])
def test_html_is_valid(which: str, html: str) -> None:
    """By the parser that the HTML standard describes, which refuses what a browser would mend."""
    text = {
        "page": lambda: html,
        "plain page": lambda: page("a", torch.zeros(1, 1, 96, 64), [Layer("time", "zero", explanation(0, 1))]),
        "index": lambda: index_page([Entry("a%20b.html", HOSTILE, 1.5, "bird")]),
    }[which]()
    html5lib.HTMLParser(strict=True).parse(text)
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse(text.replace("<main>", "<main><p><div></p>", 1))


def test_names_are_escaped(html: str) -> None:
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html


def test_page_carries_the_maps(html: str) -> None:
    data = payload(html)
    assert [(e["strategy"], e["fill"]) for e in data["layers"]][1] == ("random", "noise")
    for layer, carried in zip(layers(), data["layers"], strict=True):
        for name, values in (("importance", layer.explanation.importance), ("centred", layer.explanation.centred())):
            code = carried["maps"][name]
            codes = np.frombuffer(base64.b64decode(code["data"]), "<u2")
            read = code["low"] + codes * (code["high"] - code["low"]) / (UNKNOWN - 1)
            np.testing.assert_allclose(read, values.flatten(), atol=2e-6)


def carried_sounds(text: str) -> list[list[dict[str, np.ndarray]]]:
    """By layer and level: both parts."""
    players = dict(re.findall(r'data-part="(\w+)" src="data:audio/flac;base64,([^"]+)"', text))
    found = []
    for layer in payload(text)["heard"]["parts"]:
        sources = [{p: s.partition(",")[2] for p, s in both.items()} if both else players for both in layer]
        found.append([{p: sound(both[p]) for p in ("kept", "removed")} for both in sources])
    return found


def sound(source: str) -> np.ndarray:
    return np.asarray(soundfile.read(BytesIO(base64.b64decode(source)))[0])


def test_page_carries_sounds_that_add_up_at_every_level(html: str, sweep: np.ndarray) -> None:
    original = re.search(r'data-part="original" src="data:audio/flac;base64,([^"]+)"', html)
    assert original is not None
    whole = sound(original[1])
    np.testing.assert_allclose(whole, sweep[: whole.size], atol=1e-4)
    assert payload(html)["heard"]["levels"] == [0.1, 0.2, 0.5]
    assert len(carried_sounds(html)) == len(layers())
    for layer in carried_sounds(html):
        loudness = [float(np.square(both["kept"]).mean()) for both in layer]
        assert loudness[0] > loudness[1] > loudness[2] > 0
        for both in layer:
            np.testing.assert_allclose(both["kept"] + both["removed"], whole, atol=1e-4)


def test_page_says_where_nothing_stands_out_and_keeps_none_of_the_sound(sweep: np.ndarray) -> None:
    e = explanation(0)
    deaf = dataclasses.replace(e, fully_masked_similarity=e.mean_similarity)
    unknown = dataclasses.replace(e, centred_standard_error=torch.full_like(e.importance, torch.nan))
    verdicts = {
        "heard": (e, ""),
        "deaf": (deaf, "this network hears nothing here; nothing stands out"),
        "unknown": (unknown, "nothing stands out"),
    }
    for explained, verdict in verdicts.values():
        text = page("a", torch.zeros(2, 1, 96, 64), [Layer("time", "zero", explained)], original=(sweep, 16_000))
        (layer,) = payload(text)["layers"]
        assert layer["verdict"] == verdict
        assert (layer["largest"] is None) == bool(verdict)
        assert 2 < layer["least_z"] < 3
        kept = carried_sounds(text)[0][1]["kept"]
        assert bool(np.abs(kept).max() < 1e-4) == bool(verdict)
        assert "NaN" not in text.split('id="data">')[1].split("</script>")[0]
        assert "Infinity" not in text.split('id="data">')[1].split("</script>")[0]


def test_size_of_the_sounds_is_bounded(sweep: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    x, one = torch.zeros(2, 1, 96, 64), len(page_sounds.sound_uri(sweep[:31_120], 16_000))
    for room, levels, heard in ((21, 2, 4), (9, 1, 4), (5, 1, 2), (1.5, 0, 0)):
        monkeypatch.setattr(page_sounds, "MOST_CHARACTERS", int(room * one))
        text = page("a", x, layers(), original=(sweep, 16_000))
        found = payload(text)["heard"]
        assert (found["levels"] if found else []) == [[], [0.2], [0.1, 0.2]][levels]
        assert (sum(layer is not None for layer in found["parts"]) if found else 0) == heard
        assert len("".join(re.findall(r"data:audio/flac;base64,[^\"]+", text))) <= room * one
        assert ("sounds in a page are bounded" in text) == (heard < 4)
    monkeypatch.setattr(page_sounds, "MOST_CHARACTERS", one // 2)
    text = page("a", x, layers(), original=(sweep, 16_000))
    assert "too long to be heard here" in text
    assert "<audio" not in text


def test_what_it_is_compared_with_is_named_shown_and_played(html: str, sweep: np.ndarray) -> None:
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html)
    cells = {name: re.findall(r"<td>(.*?)</td>", values) for name, values in rows}
    assert cells["this recording"] == ["0.62 (0.50 to 0.75 in its 2 examples)", "\u22120.25", "0.75"]
    assert cells["nothing but the fill, noise"] == ["\u2013", "\u2013", "0.40"]
    assert html.count('<div class="beside-plot">') == 3
    assert "Away from crowd</h3>" in html
    assert "and 12 more" in html
    source = re.search(r'aria-labelledby="beside-1-1" src="data:audio/flac;base64,([^"]+)"', html)
    assert source is not None
    np.testing.assert_allclose(sound(source[1]), sweep[8000 : 8000 + 15_760], atol=1e-4)


def test_companions_that_do_not_fit(sweep: np.ndarray) -> None:
    x, (towards, away) = torch.zeros(2, 1, 96, 64), companions(sweep)
    with pytest.raises(ArgumentError, match="companions: expected at most one of each of towards, away"):
        page("a", x, layers(), companions=[towards, towards])
    with pytest.raises(ShapeError, match=r"companions: expected one similarity an example, shape \(2,\)"):
        page("a", x, layers(), companions=[dataclasses.replace(away, similarity=torch.zeros(3))])
    wrong = dataclasses.replace(towards.recordings[0], examples=torch.zeros(1, 1, 96, 63))
    with pytest.raises(ShapeError, match="companions: expected recordings of shape"):
        page("a", x, layers(), companions=[dataclasses.replace(towards, recordings=[wrong])])


def test_codes_of_values_that_are_not_known() -> None:
    codes = np.frombuffer(base64.b64decode(packed(np.array([1.0, np.nan, 3.0]))["data"]), "<u2")
    assert codes.tolist() == [0, UNKNOWN, UNKNOWN - 1]
    assert packed(np.full(2, np.nan))["low"] == 0


def test_layers_that_do_not_fit() -> None:
    x = torch.zeros(2, 1, 96, 64)
    with pytest.raises(ArgumentError, match="layers: expected at least one"):
        page("a", x, [])
    with pytest.raises(ArgumentError, match="layers: expected every strategy with every fill, once"):
        page("a", x, layers()[:3])
    with pytest.raises(ShapeError, match="layers: expected explanations of shape"):
        page("a", x[:1], layers())
    with pytest.raises(ShapeError, match="examples: expected shape"):
        page("a", x[:, 0], layers())


def test_example_without_an_explanation_and_without_sound() -> None:
    e = explanation(0)
    holes = {n: getattr(e, n).clone() for n in ("importance", "uncertainty", "standard_error", "neutral")}
    for values in holes.values():
        values[1] = torch.nan
    text = page("a", torch.zeros(2, 1, 96, 64), [Layer("time", "zero", Explanation(**{**vars(e), **holes}))])
    assert "<audio" not in text
    assert payload(text)["layers"][0]["median_uncertainty"][1] is None


def test_help_says_that_it_plays_only_where_it_does(html: str, sweep: np.ndarray) -> None:
    silent = page("a.wav", torch.zeros(2, 1, 96, 64), layers())
    for text, plays in ((html, True), (silent, False)):
        assert ("Space</kbd> plays" in text) == plays
        assert ("A click seeks" in text) == plays
        assert ("<audio" in text) == plays


def test_frames_that_are_counted_are_called_so() -> None:
    axis = BinAxis(every_s=1.0, size=64, label="band", time_label=COUNTED)
    text = page("a.wav", torch.zeros(2, 1, 96, 64), layers(), axis=axis)
    found = payload(text)
    assert (found["time_label"], found["in_seconds"], found["centres_hz"]) == ("frame", False, None)
    late = BinAxis(every_s=0.1, size=64, first_s=0.5, window_s=1.0)
    found = payload(page("a.wav", torch.zeros(2, 1, 96, 64), layers(), axis=late))
    assert (found["start_s"], found["first_s"]) == (pytest.approx(0.45), 0.5)


def test_index_leads_to_pages() -> None:
    text = index_page([Entry("a%20b.html", HOSTILE, 1.5, "bird"), Entry("c.html", "c.wav", 2.0, "")])
    found = check(text)
    assert (found.open, found.wrong) == ([], [])
    assert found.loads[1:] == ["a%20b.html", "c.html"]
    assert "<script>" not in text
