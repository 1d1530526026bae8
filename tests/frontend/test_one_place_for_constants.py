"""VGGish's constants stand in one place: nothing else
in the package counts on 96 frames, 64 bands or 16 kHz.
"""

from __future__ import annotations

import ast
from pathlib import Path

import relax_quantus

PACKAGE = Path(relax_quantus.__file__).parent
CONSTANTS = (96, 64, 16_000, 15_600, 6144)
HOME = ("frontend/log_mel.py", "encoders/")
OTHER_MEANINGS = {
    (
        "audio/reading.py",
        16_000,
    ): "the rate that recordings are read at unless one is given; a named constant below the front end",
    ("base/networks.py", 64): "examples embedded at a time",
    (
        "benchmark/data/synthetic_calls.py",
        16_000,
    ): "the rate that synthetic calls are made at, whatever front end hears them",
    ("benchmark/methods/questions.py", 64): "similarities remembered",
    ("benchmark/report/html.py", 96): "pixels of a bar",
    ("frontend/frame_times.py", 96): "bands that are looked at, at most",
    ("relax/execution.py", 96): "rows of a forward",
    ("relax/masks/grid.py", 64): "nodes of a table",
    ("relax/masked_forward.py", 64): "masks of a chunk",
    ("relax/stopping.py", 64): "masks before the first look",
}
"""(file, number) -> what it is there. Where the engine was moved, its line moves too."""


def numbers(source: str) -> set[float]:
    """Return the numbers that a program's code
    contains; what is written in strings does not count.
    """
    nodes = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {value for value in nodes if type(value) in (int, float)}


def test_numbers_are_found_in_code_alone() -> None:
    assert numbers('"""96 x 64"""\nx = f(16_000, [96.0])  # 64') == {16_000, 96}


def test_nothing_else_counts_on_vggishs_constants() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(HOME):
            continue
        for constant in numbers(path.read_text()) & set(CONSTANTS):
            if (name, constant) not in OTHER_MEANINGS:
                found.append(f"{name}: {constant:g}")
    assert not found, "ask the axis, the front end or LogMelConfig: " + ", ".join(found)
