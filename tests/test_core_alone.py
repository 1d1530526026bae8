"""The core alone runs RELAX, and each extra is named
where it is missing; extras are what pyproject.toml says.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import relax_quantus
from relax_quantus.base import extras
from relax_quantus.errors import MissingDependencyError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]


def ran(*program: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which finds the package that is tested here."""
    paths = [str(Path(relax_quantus.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, cwd=ROOT, env=environment)


def distributions(requirements: Iterable[str], extra: str = "") -> set[str]:
    """Names of what `requirements` bring, directly or not, as far as it is installed."""
    found: set[str] = set()
    todo = [(Requirement(r), extra) for r in requirements]
    while todo:
        requirement, asked = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked}):
            continue
        if name == "relax-quantus":
            todo += [(Requirement(r), "") for e in requirement.extras for r in OPTIONAL[e]]
            continue
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        todo += [(Requirement(r), e) for r in needs for e in ("", *requirement.extras)]
    return found


def outside_the_core() -> list[str]:
    """Packages, as they are imported, that extras bring and the core does not."""
    core = distributions(PROJECT["dependencies"])
    extra = distributions([r for of_one in OPTIONAL.values() for r in of_one])
    homes = importlib.metadata.packages_distributions()
    return sorted(
        package
        for package, names in homes.items()
        if package.isidentifier() and (of := {canonicalize_name(n) for n in names}) & extra and not of & core
    )


def test_the_core_alone_explains_and_says_what_is_missing() -> None:
    outside = outside_the_core()
    assert {"pandas", "quantus", "typer", "rich", "torchvggish", "statsmodels"} <= set(outside)
    assert not {"torch", "captum", "matplotlib", "numpy", "sklearn", "joblib"} & set(outside)
    done = ran(str(ROOT / "tests" / "core_alone.py"), "--block", *outside)
    assert done.returncode == 0, done.stderr
    assert "what is missing is named" in done.stdout


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_what_an_extra_brings_is_what_pyproject_says(extra: str) -> None:
    asked = distributions_by_name(OPTIONAL[extra])
    homes = importlib.metadata.packages_distributions()
    assert {canonicalize_name(homes[package][0]) for package in extras.EXTRAS[extra]} == asked


def distributions_by_name(requirements: list[str]) -> set[str]:
    """What is written down, other extras of ours unfolded."""
    names: set[str] = set()
    for requirement in map(Requirement, requirements):
        if canonicalize_name(requirement.name) == "relax-quantus":
            names |= {n for e in requirement.extras for n in distributions_by_name(OPTIONAL[e])}
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def test_all_is_what_the_commands_need() -> None:
    (everything,) = map(Requirement, OPTIONAL["all"])
    assert everything.extras == {"quantus", "vggish", "cli", "bench"}
    test = {e for r in map(Requirement, OPTIONAL["test"]) for e in r.extras}
    assert "all" in test


def test_a_package_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "made_up", ("json", "no_such_package_at_all"))
    message = r'^thing: expected no_such_package_at_all, got no such package; pip install "relax-quantus\[made_up\]"\.$'
    with pytest.raises(MissingDependencyError, match=message):
        extras.require("made_up", "thing")
    monkeypatch.setitem(extras.EXTRAS, "made_up", ("json",))
    extras.require("made_up", "thing")


@pytest.mark.parametrize(("command", "package"), [("bench", "pandas"), ("report", "pandas")])
def test_commands_say_what_they_lack(command: str, package: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from core_alone import Refusing;"
        f"sys.meta_path.insert(0, Refusing({{{package!r}}})); from relax_quantus.__main__ import main;"
        f"sys.argv = ['relax-quantus', {command!r}, *sys.argv[1:]]; main()"
    )
    arguments = [str(tmp_path)] if command == "report" else []
    done = ran("-c", code, *arguments)
    assert done.returncode == 1
    line = f'error: {command}: expected pandas, got no such package; pip install "relax-quantus[bench]".\n'
    assert (done.stdout, done.stderr) == ("", line)


def test_without_its_packages_the_command_line_says_so_in_one_line() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from core_alone import Refusing;"
        "sys.meta_path.insert(0, Refusing({'typer'})); import runpy;"
        "sys.argv = ['relax-quantus', '--version']; runpy.run_module('relax_quantus', run_name='__main__')"
    )
    done = ran("-c", code)
    line = 'error: relax-quantus: expected typer, got no such package; pip install "relax-quantus[cli]".\n'
    assert (done.returncode, done.stderr) == (2, line)
