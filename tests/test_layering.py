"""Who may import whom: one table, held over every module of the package, and what loading them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pgsvc_codec

ROOT = Path(pgsvc_codec.__file__).parent
PACKAGE = ROOT.name

# unit → units of ours that it may import; every unit may import `errors`, and the package itself for its version.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "video": set(),
    "workers": set(),
    "jit": set(),
    "splats": set(),
    "picture": {"video"},
    "format": set(),
    "coding": {"format", "splats", "jit"},
    "render": {"splats", "picture", "jit"},
    "media": {"video", "picture"},
    "train": {"render", "splats", "picture", "config", "video", "jit", "coding.baseline.quant", "coding.main"},
    "decoder": {"coding", "render", "format", "picture", "video"},
    "encoder": {"train", "coding", "render", "format", "splats", "picture", "metrics", "config", "video", "workers"},
    "metrics": {"picture", "jit"},
    "describe": {"format"},
}
ALL_UNITS = set(MAY_IMPORT)
MAY_IMPORT["cli"] = ALL_UNITS
MAY_IMPORT["__init__"] = ALL_UNITS  # lazily, see the tests of what loading costs

STDLIB_ONLY = {"__init__", "errors", "config", "video", "format", "describe", "workers"}

# third-party package → modules, or folders of modules, that may import it.
ONLY_IN: dict[str, set[str]] = {
    "click": {"cli"},
    "constriction": {"coding.baseline.entropy"},
    "numba": {"jit", "coding.ahead", "render", "train.main.visits", "train.motion"},
    "llvmlite": {"render.cpu"},  # the compiler below numba
    "av": {"media"},
    "torch": {"train", "encoder", "metrics.structural", "render.cuda"},
    "triton": {"render.cuda", "train.cuda"},
    "gsplat": {"render.cuda"},
    "sklearn": {"train"},
    "threadpoolctl": {"train"},
    "pytorch_optimizer": {"train"},
    "pytorch_msssim": {"metrics.structural"},
    "imageio_ffmpeg": {"metrics.vmaf"},
    "numpy": ALL_UNITS - STDLIB_ONLY | {"cli"},
}


def module_name(path: Path) -> str:
    """Dotted name inside the package; a folder's __init__ has the folder's name."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """All modules that a file imports anywhere, those for type checkers included, by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            assert node.module is not None
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in submodules if name.removeprefix(f"{PACKAGE}.") in MODULES}
            found |= ours or {node.module}
    return found


def our_imports(module: str) -> set[str]:
    """The part of `imports` that is ours, without the package's name."""
    names = imports(MODULES[module])
    return {name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")}


def lies_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def unit(module: str) -> str:
    return module.split(".")[0]


def test_the_table_knows_every_unit() -> None:
    assert {unit(module) for module in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_our_imports_follow_the_table(module: str) -> None:
    allowed = MAY_IMPORT[unit(module)] | {"errors", unit(module)}
    assert {name for name in our_imports(module) if not lies_in(name, allowed)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports_stay_in_their_places(module: str) -> None:
    packages = {name.split(".")[0] for name in imports(MODULES[module])} - set(sys.stdlib_module_names) - {PACKAGE}
    if unit(module) in STDLIB_ONLY:
        assert packages == set()
    assert packages <= set(ONLY_IN)
    assert {package for package in packages if not lies_in(module, ONLY_IN[package])} == set()


def test_kernels_are_compiled_in_one_place() -> None:
    assert {module for module, path in MODULES.items() if "njit" in path.read_text(encoding="utf-8")} == {"jit"}


def test_no_import_cycles() -> None:
    graph = {module: our_imports(module) - {module} for module in MODULES if module != "__init__"}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("allowed", sorted(MAY_IMPORT))
def test_the_table_itself_has_no_cycles(allowed: str) -> None:
    seen: set[str] = set()
    waiting = {unit(name) for name in MAY_IMPORT[allowed]} - {allowed}
    while waiting:
        seen |= waiting
        waiting = {unit(name) for place in waiting for name in MAY_IMPORT[place]} - seen
    assert allowed not in seen or allowed in ("cli", "__init__")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement; its output is dropped."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
    program += "print('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "triton", "gsplat", "sklearn"}


@pytest.mark.parametrize("module", sorted({"errors", "video", "config", "describe", "workers"} & set(MODULES)))
def test_light_modules_load_neither_numpy_nor_torch(module: str) -> None:
    assert loaded_after(f"import {PACKAGE}.{module}") & (HEAVY | {"numpy"}) == set()


def test_the_package_loads_nothing_but_itself() -> None:
    assert loaded_after(f"import {PACKAGE}") & (HEAVY | {"numpy", "click", "av", "numba"}) == set()


@pytest.mark.parametrize("module", sorted({"decoder", "media.sinks", "render.cpu"} & set(MODULES)))
def test_decoding_on_a_cpu_loads_no_torch(module: str) -> None:
    assert loaded_after(f"import {PACKAGE}.{module}") & HEAVY == set()


PARTS_OF_COMMANDS = ("cli.common", "cli.doctor", "cli.pixels")
COMMANDS = sorted(name for name in MODULES if name.startswith("cli.") and name not in PARTS_OF_COMMANDS)


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_no_torch(command: str, option: str) -> None:
    loaded = loaded_after(f"sys.argv = ['x', '{option}']; from {PACKAGE}.{command} import main; main()")
    assert "click" in loaded
    assert loaded & HEAVY == set()
