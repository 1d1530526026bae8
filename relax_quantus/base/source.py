"""Digest code: every byte of this package, or what one function or class rests on.

`source_sha256` says exactly which code made something. `Sources.closure` says less and keeps
longer: it starts at functions and classes, follows every name that they mention (also in
annotations, so that what is called on an annotated argument counts) to where it is defined, and
digests the syntax trees of the definitions that it meets. Comments, docstrings, line breaks and
whatever the starting points do not reach leave the digest as it is. Nothing is imported.

Three rules keep a closure honest and small:

- A statement of a module that is no definition (a loop, a call) counts for every definition of that
  module.
- A registration, ``REGISTRY.register("name", ...)``, counts if its name is written in the code that
  was met, or is among the names given: an entry can be looked up by its name alone.
- `NOT_ENTERED` are rooms that draw and print what others have computed, and settings, which count
  by their values.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

PACKAGE = "relax_quantus"
NOT_ENTERED = tuple(f"{PACKAGE}.{room}" for room in ("views", "cli", "benchmark.report", "benchmark.config"))

Place = tuple[str, str | None]
"""A module and a name in it; None for all of the module."""


@cache
def source_sha256() -> str:
    """Digest every Python file of this package, as it was when first asked in this process."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Closure:
    """Hold what some functions and classes rest on.

    Attributes
    ----------
    sha256
        Digest over the syntax trees of all definitions.
    modules
        Names of the modules that hold these definitions.
    libraries
        Top-level names of other packages that they import.
    """

    sha256: str
    modules: frozenset[str]
    libraries: frozenset[str]


@dataclass(eq=False)
class _Statement:
    """Hold a statement of a module, without docstrings."""

    node: ast.stmt

    def __post_init__(self) -> None:
        self.text = ast.dump(self.node)
        self.names, self.attributes = set[str](), set[tuple[str, str]]()
        self.literals, self.imports = set[str](), dict[str, Place]()
        bases = set[int]()
        for node in ast.walk(self.node):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                self.attributes.add((node.value.id, node.attr))
                bases.add(id(node.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.literals.add(node.value)
        self.names = {n.id for n in ast.walk(self.node) if isinstance(n, ast.Name) and id(n) not in bases}


@dataclass(eq=False)
class _Module:
    definitions: dict[str, list[_Statement]] = field(default_factory=dict)
    effects: list[_Statement] = field(default_factory=list)
    registrations: list[tuple[str, _Statement]] = field(default_factory=list)
    imports: dict[str, Place] = field(default_factory=dict)


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Drop a statement that is a text alone."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)


class Sources:
    """Read the source files of packages when they are needed, and remember them.

    Parameters
    ----------
    packages
        Name of a package -> the folder that holds it; others are libraries. None for this package
        alone, where it lies.
    """

    def __init__(self, packages: Mapping[str, Path] | None = None) -> None:
        self.packages = dict(packages or {PACKAGE: Path(__file__).resolve().parents[2]})
        self._modules: dict[str, _Module | None] = {}

    def closure(self, starts: Iterable[Place], names: Iterable[str] = ()) -> Closure:
        """Follow every name from `starts`.

        `names` are entries of registries that are looked up from settings.
        """
        return _Search(self, set(names)).closure(starts)

    def closure_of(self, objects: Iterable[Any], names: Iterable[str] = ()) -> Closure:
        """Find the closure of functions, classes and instances, also of other packages."""
        starts = list(dict.fromkeys(place for thing in objects for place in self._places(thing)))
        return self.closure(starts, names)

    def _places(self, thing: Any) -> Iterator[Place]:
        """Find where a function, a class or an instance's class is defined.

        For a partial, find where its function is.
        """
        while isinstance(thing, partial):
            thing = thing.func
        thing = thing if hasattr(thing, "__qualname__") else type(thing)
        module, name = thing.__module__ or "", thing.__qualname__.partition(".")[0]
        top = module.partition(".")[0]
        file = getattr(sys.modules.get(top), "__file__", None)
        if (
            top not in self.packages
            and file is not None
            and file.endswith(".py")
            and top not in sys.stdlib_module_names
        ):
            path = Path(file)
            self.packages[top] = path.parents[1] if path.name == "__init__.py" else path.parent
        yield module, None if name.startswith("<") else name

    def module(self, name: str) -> _Module | None:
        """Return the module of this name, or None if it is no file of these packages."""
        if name not in self._modules:
            path = self._path(name)
            self._modules[name] = None if path is None else self._read(name, path)
        return self._modules[name]

    def _path(self, name: str) -> Path | None:
        folder = self.packages.get(name.partition(".")[0])
        if folder is None:
            return None
        path = folder.joinpath(*name.split("."))
        found = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        return next((file for file in found if file.is_file()), None)

    def _read(self, name: str, path: Path) -> _Module:
        tree = _WithoutDocstrings().visit(ast.parse(path.read_bytes()))
        module, is_package = _Module(), path.name == "__init__.py"
        self._take(module, tree.body, name if is_package else name.rpartition(".")[0])
        face = path.with_suffix(".pyi")
        if face.is_file():  # a lazy package: the stub says where its names are
            stubs = _Module()
            self._take(stubs, ast.parse(face.read_bytes()).body, name)
            module.imports = stubs.imports | module.imports
        return module

    def _take(self, module: _Module, body: list[ast.stmt], package: str) -> None:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module.imports |= self._imported(node, package)
                continue
            statement = _Statement(node)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    statement.imports |= self._imported(inner, package)
            defined, registered = list(_defined(node)), _registered(node)
            for name in defined:
                module.definitions.setdefault(name, []).append(statement)
            if isinstance(node, ast.If | ast.Try | ast.With):  # imports in them are the module's
                module.imports |= statement.imports
            if registered is not None:
                module.registrations.append((registered, statement))
            elif not defined and not _is_for_annotations(node):
                module.effects.append(statement)

    def _imported(self, node: ast.Import | ast.ImportFrom, package: str) -> dict[str, Place]:
        """Return what an import binds."""
        if isinstance(node, ast.Import):
            return {a.asname or a.name.partition(".")[0]: (a.name, None) for a in node.names}
        parents = package.split(".")
        base = ".".join([*parents[: len(parents) + 1 - node.level], *filter(None, [node.module])] if node.level else [])
        base = base or str(node.module)
        found: dict[str, Place] = {}
        for a in node.names:
            inner = f"{base}.{a.name}"
            found[a.asname or a.name] = (
                (inner, None) if self._path(inner) else (base, None if a.name == "*" else a.name)
            )
        return found


class _Search:
    """Follow one closure while it grows."""

    def __init__(self, sources: Sources, names: set[str]) -> None:
        self.sources, self.literals = sources, names
        self.met, self.asked = dict[int, tuple[str, _Statement]](), set[Place]()
        self.modules, self.libraries = set[str](), set[str]()
        self.waiting, self.pending = list[Place](), list[tuple[str, str, _Statement]]()

    def closure(self, starts: Iterable[Place]) -> Closure:
        self.waiting += starts
        while self.waiting:
            while self.waiting:
                self._find(self.waiting.pop())
            now, self.pending = self.pending, []
            for module, name, statement in now:
                if name in self.literals:
                    self._meet(module, statement)
                else:
                    self.pending.append((module, name, statement))
        lines = sorted(f"{module} {statement.text}" for module, statement in self.met.values())
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return Closure(digest, frozenset(self.modules), frozenset(self.libraries))

    def _find(self, place: Place) -> None:
        name, wanted = place
        if place in self.asked or any(f"{name}.".startswith(f"{room}.") for room in NOT_ENTERED):
            return
        self.asked.add(place)
        module = self.sources.module(name)
        if module is None:
            top = name.partition(".")[0]
            if top not in self.sources.packages and top not in sys.stdlib_module_names:
                self.libraries.add(top)
        elif wanted is not None and wanted not in module.definitions and wanted in module.imports:
            self.waiting.append(module.imports[wanted])  # passed on
        elif wanted is not None and self.sources.module(f"{name}.{wanted}") is not None:
            self.waiting.append((f"{name}.{wanted}", None))
        else:
            self._enter(name, module)
            everything = module.definitions if wanted not in module.definitions else (wanted,)
            for defined in everything:
                for statement in module.definitions[defined]:
                    self._meet(name, statement)

    def _enter(self, name: str, module: _Module) -> None:
        if name not in self.modules:
            self.modules.add(name)
            self.pending += [(name, entry, statement) for entry, statement in module.registrations]
            for statement in module.effects:
                self._meet(name, statement)

    def _meet(self, name: str, statement: _Statement) -> None:
        if id(statement) in self.met:
            return
        self.met[id(statement)] = name, statement
        self.literals |= statement.literals
        module = self.sources.module(name)
        assert module is not None
        known = {**module.imports, **statement.imports}
        for local, attribute in [*((n, None) for n in statement.names), *statement.attributes]:
            if local in known:
                where, inner = known[local]
                self.waiting.append((where, attribute if inner is None else inner))
            elif local in module.definitions:
                self.waiting.append((name, local))


def _defined(node: ast.stmt) -> Iterator[str]:
    """Return the names that a statement defines or changes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        for inner in [*node.body, *node.orelse, *(s for h in getattr(node, "handlers", ()) for s in h.body)]:
            yield from _defined(inner)


def _registered(node: ast.stmt) -> str | None:
    """Return the name under which a statement registers something."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register":
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    return None


def _is_for_annotations(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
