"""The first line of every public docstring is one short sentence that makes sense by itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import relax_quantus

ROOT = Path(relax_quantus.__file__).parent
LONGEST = 100

FRAGMENT = re.compile(
    r"(As|At|Beside|By|For|From|How|In|It|Its|None|Of|On|That|Their|These|To|What|When|Where|Whether|Which|Who|Whose"
    r"|With) "
)
"""A beginning by which a line leans on the name above it: "Of all cells.", "None beside it."."""

# First lines that are still to be mended, by room, without "relax_quantus.". It may only get
# shorter: a room that is mended is deleted.
KNOWN: dict[str, set[str]] = {
    "cli": {
        "cli.console",
        "cli.main.Request",
        "cli.main.root",
    },
    "frontend": {
        "frontend.axes.Axis.in_seconds",
        "frontend.axes.HasAxis",
        "frontend.axes.HasAxis.axis",
        "frontend.examples",
        "frontend.examples.like",
        "frontend.examples.without_source",
        "frontend.frame_times",
        "frontend.frame_times.FrameTimes",
        "frontend.frame_times.confirmed",
        "frontend.framing",
        "frontend.framing.Framing.example_samples",
        "frontend.framing.Sliding",
        "frontend.framing.cut",
        "frontend.front_end",
        "frontend.front_end.FrontEnd.describe",
        "frontend.front_end.FrontEnd.examples_of",
        "frontend.front_end.FrontEnd.of_waveforms",
        "frontend.front_end.Reading",
        "frontend.front_end.of_transform",
        "frontend.log_mel.LogMel",
        "frontend.log_mel.LogMel.axis",
        "frontend.log_mel.LogMel.frames",
        "frontend.log_mel.LogMelConfig",
        "frontend.log_mel.LogMelConfig.band_edges_hz",
        "frontend.measured_axes",
        "frontend.measured_axes.knows_no_rest",
        "frontend.measured_axes.said_axis",
        "frontend.measured_axes.said_times",
        "frontend.measured_axes.timed",
        "frontend.measured_axes.times_of_parts",
        "frontend.measured_axes.transform_axis",
        "frontend.transform.TransformFrontEnd.load_examples",
        "frontend.transform.TransformFrontEnd.silence",
    },
    "recordings": {
        "recordings.anchors",
        "recordings.anchors.Anchor.label",
        "recordings.fitting.ClassCount",
        "recordings.folders.Found",
        "recordings.folders.Found.why",
        "recordings.folders.is_hidden",
        "recordings.folders.is_own",
        "recordings.plan",
        "recordings.plan.Plan.is_stitched",
        "recordings.recording",
        "recordings.recording.RecordingExplanation.bounds",
        "recordings.recording.RecordingExplanation.errors",
        "recordings.recording.RecordingMap.bounds",
        "recordings.recording.RecordingMap.heard",
        "recordings.recording.RecordingMap.hears_nothing",
        "recordings.session.Session.beside",
        "recordings.session.Session.encoder_name",
        "recordings.session.Session.question",
        "recordings.stitching.Stitched.heard",
        "recordings.writing",
        "recordings.writing.ResultFiles.draft",
    },
    "relax": {
        "relax.bound_masks.Lattice.sampled",
        "relax.estimators.moments.Moments.varying",
        "relax.execution.Execution.has_lowered_precision",
        "relax.execution.Execution.is_fixed",
        "relax.fast_copy.may_fold",
        "relax.masked_forward.is_out_of_memory",
        "relax.similarity.is_directional",
    },
    "views": {
        "views.explanation.as_html",
        "views.explanation.drawable",
        "views.page.companions",
        "views.page.companions.described",
        "views.page.companions.pictures",
        "views.page.layers",
        "views.page.layers.Layer.standing",
        "views.page.layers.described",
        "views.page.layers.note",
        "views.page.sounds",
        "views.page.sounds.Sounds",
        "views.thresholds",
        "views.thresholds.Bounds",
        "views.thresholds.Bounds.in_words",
        "views.thresholds.Bounds.is_empty",
        "views.thresholds.StandingOut",
    },
}


def first_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and first line of each docstring of a module, its public classes and functions."""
    tree = ast.parse(path.read_text())

    def walk(
        node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
    ) -> Iterator[tuple[str, str]]:
        documented = ast.get_docstring(node)
        if documented:
            yield name, documented.partition("\n")[0]
        if isinstance(node, ast.Module | ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and inner.name[0] != "_":
                    yield from walk(inner, f"{name}.{inner.name}")

    module = path.relative_to(ROOT.parent).with_suffix("") if path.is_relative_to(ROOT) else Path(path.stem)
    yield from walk(tree, ".".join(part for part in module.parts if part != "__init__"))


def faults(line: str) -> list[str]:
    """Say what is wrong with a first line; nothing if nothing is."""
    return [
        said
        for wrong, said in (
            (not line.endswith("."), "does not end with a period"),
            (len(line) > LONGEST, f"has {len(line)} characters"),
            (FRAGMENT.match(line) is not None, "is a fragment"),
        )
        if wrong
    ]


def rooms() -> dict[str, dict[str, str]]:
    """Return the faulty first lines of each room, by the name that they document."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.pyi")]):
        room = path.relative_to(ROOT).parts[0].partition(".")[0]
        for name, line in first_lines(path):
            if said := faults(line):
                found.setdefault(room, {})[name] = f"{', '.join(said)}: {line}"
    return found


def test_first_lines_are_sentences() -> None:
    new = [
        f"{name} {said}"
        for room, faulty in rooms().items()
        for name, said in faulty.items()
        if name.removeprefix("relax_quantus.") not in KNOWN.get(room, set())
    ]
    assert not new, "\n".join(new)


def test_mended_rooms_are_no_longer_known() -> None:
    mended = KNOWN.keys() - rooms().keys()
    assert not mended, f"delete from KNOWN: {sorted(mended)}"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("Return the key of every cell, in table order.", None),
        ("A frozen record of a run.", None),
        ("Of all cells.", "fragment"),
        ("None beside RELAX's.", "fragment"),
        ("Whether a file is a head.", "fragment"),
        ("Return the key", "period"),
        ("Return " + "the key of " * 10 + "cells.", "characters"),
    ],
)
def test_what_counts_as_a_fault(line: str, fault: str | None) -> None:
    said = faults(line)
    assert len(said) == (fault is not None)
    assert fault is None or fault in said[0]


def test_methods_and_classes_count_and_private_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(
        '"""A."""\nclass C:\n    """B."""\n    def f(self):\n        """C.\n\n        D."""\n    def _g(self):\n'
        '        """E."""\nclass _H:\n    """F."""\n    def f(self):\n        """G."""\n'
    )
    assert list(first_lines(path)) == [("m", "A."), ("m.C", "B."), ("m.C.f", "C.")]
