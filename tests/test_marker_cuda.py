"""Tests that need a GPU: skipped without one, failing where one is asked for, and kernels interpreted meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
PROBE = """
import os
import pytest

@pytest.mark.cuda
def test_marked():
    pass

def test_triton(cuda_device):
    assert os.environ["TRITON_INTERPRET"] == "1"
    assert cuda_device.type == "cpu"
"""


@pytest.fixture
def outcome(tmp_path: Path) -> object:
    """A function that runs a marked test and a plain one where no GPU is to be seen; what pytest says of them."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda\n", encoding="utf-8")

    def run(required: str) -> tuple[int, str]:
        chosen = {"PGSVC_REQUIRE_CUDA": required, "CUDA_VISIBLE_DEVICES": ""}
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | chosen
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("required", ["", "0"])
def test_cuda_tests_are_skipped_without_a_gpu(outcome, required: str) -> None:
    code, text = outcome(required)
    assert code == 0, text
    assert "1 passed, 1 skipped" in text
    assert "needs an NVIDIA GPU: " in text


def test_cuda_tests_fail_where_a_gpu_is_asked_for(outcome) -> None:
    code, text = outcome("1")
    assert code == 1, text
    assert "1 passed, 1 error" in text  # of its setup
    assert "PGSVC_REQUIRE_CUDA=1 asks for one" in text
