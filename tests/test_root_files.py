"""What stands at the root: README, its links and commands,
the citation, the changelog, versions and classifiers.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import relax_quantus as rq

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_THE_DOCS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "citing.md",
}
"""File at the root -> the page of the documentation that includes it."""
RELATIVE = re.compile(r"\]\((?!https?:|#)([^)#]+)")
SOURCES = sorted(p for folder in ("relax_quantus", "benchmarks", "tests") for p in (ROOT / folder).rglob("*.py"))
MINORS = [int(c.rpartition(".")[2]) for c in PROJECT["classifiers"] if "Python :: 3." in c]


@pytest.fixture(scope="module")
def setup_file() -> ModuleType:
    """Import setup.py, which builds nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("setup_of_relax_quantus", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not [target for target in RELATIVE.findall(text) if not (ROOT / target).exists()]


def test_the_description_on_a_package_index_page_has_no_link_that_leads_nowhere(setup_file: ModuleType) -> None:
    relative = RELATIVE.findall(README)
    assert len(relative) > 20
    without = setup_file.description(README, None)
    assert RELATIVE.findall(without) == []
    assert "changelog (`CHANGELOG.md`)" in without
    assert "![" not in without
    hosted = setup_file.description(README, "https://example.org/us/relax-quantus/")
    assert RELATIVE.findall(hosted) == []
    assert "[changelog](https://example.org/us/relax-quantus/blob/HEAD/CHANGELOG.md)" in hosted
    assert "](https://example.org/us/relax-quantus/raw/HEAD/docs/pictures/explanation.png)" in hosted
    for link in re.findall(r"\]\((https?:[^)]*)\)", README):
        assert f"]({link})" in hosted


def test_readme_begins_with_the_two_commands() -> None:
    commands = re.findall(r"```(?:bash|sh|shell)\n(.*?)\n```", README, flags=re.S)
    assert commands[:2] == [
        'pip install -c constraints.txt ".[all]" && relax-quantus bench',
        'pip install -c constraints.txt ".[all,test]" && python -m pytest',
    ]


@pytest.mark.parametrize(("name", "page"), OF_THE_DOCS.items())
def test_the_root_has_the_only_text_and_the_documentation_includes_it(name: str, page: str) -> None:
    assert (ROOT / name).stat().st_size > 500
    text = (DOCS / page).read_text(encoding="utf-8")
    assert re.search(rf"```{{(literal)?include}} \.\./{re.escape(name)}\n", text)
    own = {line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if len(line) > 30}
    assert not own & set(text.splitlines())


def test_the_citation_is_whole_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert str(citation["version"]) == rq.__version__
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert (paper["volume"], paper["start"], paper["end"], paper["year"]) == (131, 1584, 1610, 2023)


def test_the_changelog_begins_with_this_version() -> None:
    first = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    assert first[0] == rq.__version__


def test_classifiers_are_of_pythons_that_the_requirement_takes() -> None:
    assert list(range(MINORS[0], MINORS[-1] + 1)) == MINORS
    assert PROJECT["requires-python"] == f">=3.{MINORS[0]}"
    assert sys.version_info[1] in MINORS


@pytest.mark.parametrize("minor", MINORS)
def test_the_sources_compile_as_each_python_that_is_named(minor: int) -> None:
    """As far as this interpreter knows them: it reads the grammar of earlier ones, and its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        for path in SOURCES:
            tree = ast.parse(path.read_bytes(), str(path), feature_version=(3, min(minor, sys.version_info[1])))
            compile(tree, str(path), "exec")
