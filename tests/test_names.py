"""The same class name never stands for two things in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import relax_quantus

ROOT = Path(relax_quantus.__file__).parent

# Names that still stand for two things. It may only get shorter: delete a name once one of its two
# classes has another.
SHARED = {"Entry", "Lattice", "Plan", "Recording"}


def modules_by_class(root: Path) -> dict[str, list[str]]:
    """List the modules that define each class at any depth, public or private."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        classes = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
        for name in sorted(classes):
            found[name].append(str(path.relative_to(root)))
    return found


def test_a_class_name_stands_for_one_thing() -> None:
    shared = {name: places for name, places in modules_by_class(ROOT).items() if len(places) > 1}
    new = {name: places for name, places in shared.items() if name not in SHARED}
    assert not new, f"give one of the two another name: {new}"
    assert set(shared) >= SHARED, f"delete from SHARED: {sorted(SHARED - set(shared))}"


def test_private_and_nested_classes_count(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class _Mark:\n    pass\n")
    (tmp_path / "b.py").write_text("def f():\n    class _Mark:\n        pass\n\nclass Mark: pass\n")
    assert modules_by_class(tmp_path) == {"_Mark": ["a.py", "b.py"], "Mark": ["b.py"]}
