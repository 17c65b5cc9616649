"""The project around the package: what its files promise each other and a newcomer."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from fractions import Fraction
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pgsvc_codec
from pgsvc_codec import EncodeConfig, config
from pgsvc_codec.format import constants
from pgsvc_codec.media.sinks import open_sink
from pgsvc_codec.media.source import open_source
from pgsvc_codec.train import fit
from pgsvc_codec.video import VideoInfo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pgsvc_codec"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def project_files() -> list[Path]:
    """All files but those that .gitignore names, and git's own."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()] + [".git"]

    def is_ours(path: Path) -> bool:
        names = path.name, str(path.relative_to(ROOT))  # patterns with a slash are of whole paths
        return not any(fnmatch(names["/" in pattern], pattern) for pattern in ignored)

    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if is_ours(Path(folder, name))]
        found += [path for path in (Path(folder, name) for name in files) if is_ours(path)]
    return sorted(found)


def test_what_benchmarks_leave_behind_is_not_the_project_s() -> None:
    assert not [path for path in project_files() if path.is_relative_to(ROOT / "benchmarks" / "work")]
    assert ROOT / "benchmarks" / "rd.py" in project_files()


def code_blocks(text: str) -> list[str]:
    """The indented blocks of a Markdown text."""
    return [block.strip("\n") for block in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE) if block.strip()]


# README


def test_readme_begins_with_the_two_commands() -> None:
    lines = code_blocks(README)[0].splitlines()
    assert [line.split("#")[0].strip() for line in lines] == ["make demo", "make test"]
    assert "CLIP=my.mp4" in lines[0]


def test_readme_fits() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", ["encode", "decode", "info", "metrics"])
def test_readme_uses_options_that_exist(command: str) -> None:
    uses = re.findall(rf"pgsvc-{command} ([^|#`\n]*)", "\n".join(code_blocks(README)))
    named = {word for use in uses for word in use.split() if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    assert uses
    program = f"from pgsvc_codec.cli.{command} import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True)
    assert named - set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout)) == set()


def test_readme_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    quick = re.sub(r"EncodeConfig\(.*?\)", "EncodeConfig(iterations=2, splats=24)", example)
    assert quick != example
    monkeypatch.chdir(tmp_path)
    info = VideoInfo(16, 16)
    with open_sink("y4m", "in.y4m", info) as sink:
        for value in (20, 200):
            sink.write(tuple(np.full(shape, value, np.uint8) for shape in info.plane_shapes))
    names: dict[str, Any] = {}
    exec(quick, names)
    assert names["report"].size_bytes == Path("out.pgs").stat().st_size
    assert names["luma"].shape == (16, 16)
    assert len(names["chroma"]) == 2
    assert str(names["report"].size_bytes) in capsys.readouterr().out


def test_readme_maps_every_module() -> None:
    described = set(re.findall(r"`(\w+)`", README.split("## The package")[1].split("\n`coding`")[0]))
    units = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert units - {"__init__"} <= described


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bitstream_spec.md"])
def test_links_and_named_files_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!#|\w+:)([^)#]+)\)", text)
    files = [word for word in re.findall(r"`([\w/]+\.(?:md|py|txt|toml))`", text) if "/" in word]
    missing = [target for target in links + files if not (ROOT / target).exists() and not (PACKAGE / target).exists()]
    assert missing == []


# Make and continuous integration


@pytest.mark.parametrize("target", ["demo", "test", "lint", "types", "gpu", "clean"])
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
    assert target in re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"make .*\btest$", script.read_text(encoding="utf-8"), re.MULTILINE)


# The demonstration


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """tools/demo.py."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_clip_moves_and_changes_scene_and_is_always_the_same(demo: ModuleType, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.y4m", "two.y4m")]
    counts = [demo.make_clip(path) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with open_source(str(paths[0])) as source:
        assert source.info == demo.CLIP_INFO
        lumas = [frame[0].astype(np.int16) for frame in source]
    assert [len(lumas)] * 2 == counts
    changes = np.array([np.abs(after - before).mean() for before, after in pairwise(lumas)])
    cut = demo.SCENE_FRAMES - 1
    assert changes.argmax() == cut
    within = np.delete(changes, cut)
    assert within.min() > 1
    assert changes[cut] > 3 * within.max()


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (24, [3, 9, 15, 21]), (25, [3, 9, 15, 21])])
def test_demo_sheet_shows_frames_from_all_over_the_clip(demo: ModuleType, count: int, expected: list[int]) -> None:
    assert demo.sheet_frames(count) == expected


def test_demo_sheet_holds_columns_of_scaled_pictures(demo: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    pictures = [[np.full((7, 2 * demo.SHEET_TILE_WIDTH, 3), value, np.uint8)] * 2 for value in (10, 90)]
    demo.write_sheet(path, pictures)
    with open_source(str(path)) as source:
        (red, _, _) = next(iter(source))
    gap, width = demo.SHEET_GAP, demo.SHEET_TILE_WIDTH
    assert red.shape == (3 + gap + 3, width + gap + width)
    assert np.unique(red[:3, :width]) == 10
    assert np.unique(red[-3:, -width:]) == 90
    assert np.unique(red[3:-3]) == 255


# Dependencies


def requirements() -> dict[str, Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {
        canonicalize_name(found.name): found for found in map(Requirement, lines) if found.name != project["name"]
    }  # an extra may name the project for another of its extras


def pins() -> dict[str, str]:
    """Version of each name in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line) for line in lines if line[:1] != "#"]
    assert all(found), "a line of constraints.txt is not NAME==VERSION"
    return {canonicalize_name(match[1]): match[2] for match in found}


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    outside = {
        name: pins().get(name, "not pinned")
        for name, requirement in requirements().items()
        if not requirement.specifier.contains(pins().get(name, "0"))
    }
    assert outside == {}


def test_every_import_is_a_declared_dependency() -> None:
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    # a CUDA build of torch brings Triton along; elsewhere there is nothing that it could compile for
    imported -= set(sys.stdlib_module_names) | {PACKAGE.name, "triton"}
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {canonicalize_name({"sklearn": "scikit-learn"}.get(name, name)) for name in imported} <= declared


def test_every_dependency_is_bounded_on_both_sides() -> None:
    open_ended = [
        str(requirement)
        for requirement in requirements().values()
        if {specifier.operator for specifier in requirement.specifier} != {">=", "<"}
    ]
    assert open_ended == []


def test_constraints_pin_what_dependencies_bring_along_and_nothing_else() -> None:
    needed = set(requirements())
    waiting = list(needed)
    while waiting:
        name = waiting.pop()
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not for this platform, or not installed by who runs this
            continue
        for requirement in map(Requirement, lines):
            brought = canonicalize_name(requirement.name)
            # a CUDA build of torch names its own parts, at versions of its own
            is_cuda = name == "torch" and re.match("nvidia-|cuda-|triton", brought)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and not is_cuda and brought not in needed:
                needed.add(brought)
                waiting.append(brought)
    assert needed == set(pins())


def test_torch_is_pinned_exactly() -> None:
    assert pins()["torch"] == "2.13.0"


def test_triton_is_for_tests_on_linux_only() -> None:
    assert not any("triton" in line for line in PYPROJECT["project"]["dependencies"])
    marker = requirements()["triton"].marker
    assert marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"})
    assert not marker.evaluate({"sys_platform": "darwin", "platform_machine": "arm64"})


# Package


def test_version_has_one_source() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pgsvc_codec.__version__"}
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", pgsvc_codec.__version__)


@pytest.mark.parametrize("name", ["pgsvc-encode", "pgsvc-decode"])
def test_launchers_run_from_any_folder(name: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    command = [ROOT / "bin" / name, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert f"Usage: {name}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":")) or len(docstring.splitlines()) > 1


def test_limits_of_options_are_those_of_the_format() -> None:
    limits = (config.MAX_LAYERS, config.MAX_SPLATS, config.MAX_KEYINT)
    assert limits == (constants.MAX_LAYERS, constants.MAX_SPLATS, constants.MAX_GOP_FRAMES)


def test_profiles_of_options_are_those_of_the_format() -> None:
    assert set(config.PROFILES) == set(constants.PROFILE_NAMES.values())


def test_ways_of_training_of_options_are_those_of_the_fit() -> None:
    assert set(config.LEVEL_SCHEDULES) == set(fit.LEVEL_SCHEDULES)
    assert set(config.STRATEGIES) == set(fit.STRATEGIES)
    plans = [EncodeConfig(preset=name).resolve(64, 48, Fraction(25), still=True) for name in config.PRESETS]
    assert {plan.method for plan in plans} == set(fit.METHODS)


# Hygiene


def test_modules_that_scripts_and_tests_import_by_name_differ() -> None:
    """Both folders are searched for modules in one run of the tests."""
    names = [
        {path.stem for path in (ROOT / folder).rglob("*.py") if not (path.parent / "__init__.py").exists()}
        for folder in ("benchmarks", "tests")
    ]
    assert names[0] & names[1] == set()


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w./-])/(?:work|tmp|home|root|opt|mnt)/\w",  # a path of one machine
        r"pypi\.(?:org|python)|pythonhosted\.org|download\.pytorch\.org|index-url|find-links",  # where to install from
    ],
    ids=["machine paths", "registries"],
)
def test_no_file_names_a_machine(pattern: str) -> None:
    found = []
    for path in project_files():
        data = path.read_bytes()
        if path == Path(__file__).resolve() or b"\0" in data:
            continue
        lines = data.decode("utf-8").splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if re.search(pattern, line)
        ]
    assert found == []


def test_files_are_small() -> None:
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in project_files()}
    assert {name: size for name, size in large.items() if size > 500_000} == {}
