"""The class that `cell.target` names, and what tells it from another of the same name.

A class of an installed distribution is identified by the distribution's name and version; an
adapter of charcmp's by those of the class that it adapts, and by a hash of its own source. A user's
own class is identified by a hash of the file that `cell.target` names, of the file that defines the
class, and of all the user's files that these import, directly or not. Their paths do not matter.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from charcmp.errors import UserError, one_line
from charcmp.models.cells.registry import CELLS, MODULE

ADAPTERS = "charcmp.models.cells.adapters"


@dataclass(frozen=True)
class Target:
    make: Callable[..., Any]  # the class
    name: str  # without its module
    origin: str  # `torchrecurrent 0.2.5`, `ncps 1.0.1, adapter 7f02...` or `sha256 5d41...`


@cache
def load_target(target: str) -> Target:
    """Imports the class that `package.Class` or `my_cell.py:MyCell` names.

    Raises:
        UserError: if there is no such class, or importing it fails.
    """
    where, _, name = target.rpartition(":" if ".py:" in target else ".")
    try:
        with _default_dtype_kept():
            module = _load_file(Path(where)) if where.endswith(".py") else _import(where)
    except (Exception, SystemExit) as error:  # of anyone's code, perhaps a script
        raise UserError(f"cell.target={target}: cannot be imported ({one_line(error)})") from None
    if not isinstance(make := getattr(module, name, None), type):
        raise UserError(f"cell.target={target}: {where} has no class {name}")
    if name in (*CELLS, MODULE):
        raise UserError(f"cell.target={target}: {name} names a cell of charcmp; rename the class")
    if not name.isascii():
        raise UserError(
            f"cell.target={target}: a class name may contain only letters a-z, digits and _, "
            "since folders are named after it; rename the class"
        )
    try:
        origin = _origin(make, module)
        if where.endswith(".py"):
            _refuse_namesakes(target, module)
    except OSError as error:
        raise UserError(
            f"cell.target={target}: a file that it imports cannot be read ({one_line(error)})"
        ) from None
    return Target(make, name, origin)


@contextlib.contextmanager
def _default_dtype_kept() -> Iterator[None]:
    """Restores torch's default type, which a file may set: it holds for all classes."""
    import torch  # here, since commands that load no class do without it

    dtype = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


def _import(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as `python -m` does, but after what is installed
    return importlib.import_module(name)


def _load_file(file: Path) -> ModuleType:
    """Imports a file as a module; it may import others from its folder."""
    file = file.expanduser().resolve(strict=True)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    name = f"charcmp_target_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _origin(make: type, module: ModuleType) -> str:
    """Identifies a class that a module has; another may define it, as one with a factory does."""
    if make.__module__ == ADAPTERS:
        return _origin_of_adapter(make)
    defining = sys.modules.get(make.__module__, module)
    own = _own_modules(module, defining)
    files = {file for _, file in own}
    parts = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    if defining.__name__ not in {name for name, _ in own}:  # installed, though named in a file
        parts.append(_installed(defining.__name__.partition(".")[0]))
    if not files:
        return parts[0]
    return f"sha256 {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"


def _refuse_namesakes(target: str, module: ModuleType) -> None:
    """Raises UserError if a file runs with another module than the one that lies beside it.

    Python has one module of a name. It may be of another class's folder, or installed, since what
    is installed comes before the folders of files. A file of a package means Python's own by names
    such as `logging`, whatever lies beside it.
    """
    assert module.__file__ is not None
    folder = str(Path(module.__file__).parent)
    pythons = sys.stdlib_module_names if Path(folder, "__init__.py").is_file() else frozenset()
    here = [(name, file) for name, file in _own_modules(module) if file.is_relative_to(folder)]
    for name, file in sorted(here):
        for imported in sorted({name.partition(".")[0] for name in _imported_names(name, file)}):
            beside, found = PathFinder.find_spec(imported, [folder]), _find_spec(imported)
            if beside and found and imported not in pythons and _is_taken_for(found, beside):
                raise UserError(
                    f"cell.target={target}: {file.name} imports {imported}, but that is already "
                    f"{_place(found)}; rename the one in {folder}"
                )


def _is_taken_for(found: ModuleSpec, beside: ModuleSpec) -> bool:
    if found.has_location and not beside.has_location:
        return False  # a folder without __init__.py, which Python takes only for want of another
    there, here = _place(found), _place(beside)
    return there is not None and here is not None and there.resolve() != here.resolve()


def _place(spec: ModuleSpec) -> Path | None:
    """Returns a module's file, or the first folder of a package without one; None of a built-in."""
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return Path(places[0]) if places and places[0] else None


def _origin_of_adapter(adapter: type) -> str:
    source = hashlib.sha256(inspect.getsource(adapter).encode()).hexdigest()
    return f"{_installed(vars(adapter)['adapts'])}, adapter {source[:12]}"


def _installed(package: str) -> str:
    """Returns the distribution that installed a package, as `torchrecurrent 0.2.5`."""
    (distribution, *_) = metadata.packages_distributions().get(package, [package])
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:  # Python's own
        return f"{package} {sys.version_info.major}.{sys.version_info.minor}"
    return f"{distribution} {version.partition('+')[0]}"  # not torch's +cpu or +cu128


def _own_modules(*modules: ModuleType) -> set[tuple[str, Path]]:
    """Returns names and files of the modules and of those they import, directly or not, that are
    the user's own."""
    found: set[tuple[str, Path]] = set()
    waiting = [(module.__name__, getattr(module, "__file__", None)) for module in modules]
    while waiting:
        name, origin = waiting.pop()
        if origin is None or not _is_own(name, file := Path(origin).resolve()):
            continue
        if (name, file) not in found:
            found.add((name, file))
            specs = ((imported, _find_spec(imported)) for imported in _imported_names(name, file))
            waiting += [(imported, spec.origin) for imported, spec in specs if spec is not None]
    return found


def _is_own(name: str, file: Path) -> bool:
    """Returns whether a module's file is neither installed, nor Python's, nor charcmp's."""
    paths = sysconfig.get_paths()
    installed = [*(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))]
    installed += [*site.getsitepackages(), site.getusersitepackages()]
    is_installed = any(file.is_relative_to(Path(folder).resolve()) for folder in installed)
    return file.is_file() and not is_installed and name.partition(".")[0] != "charcmp"


def _find_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (Exception, SystemExit):  # of a package around it, which this imports
        return None


def _imported_names(name: str, file: Path) -> Iterator[str]:
    """Yields the modules that a file's import statements name, at any depth, and those that it
    hands to importlib.import_module as a literal. Some may be no modules."""
    if file.suffix != ".py":
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # not what the class runs on, or it could not have been imported
    for node in ast.walk(tree):
        for imported in _named_by(node):
            with contextlib.suppress(ImportError):  # relative, in a file without a package
                yield importlib.util.resolve_name(imported, package)


def _named_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = "." * node.level + (node.module or "")
            # In `from a import b`, b may be a module or something in one; only trying tells.
            dot = "" if base.endswith(".") else "."
            return [base, *(f"{base}{dot}{alias.name}" for alias in node.names)]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(imported)), *_],
        ):
            return [imported]
    return []
