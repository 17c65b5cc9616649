"""The choice of a device: on a machine with a GPU, without one, and with Triton's interpreter in its place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pgsvc_codec.errors import BackendError, ConfigError
from pgsvc_codec.render import availability
from pgsvc_codec.render.availability import find_driver, one_line, painting_part
from pgsvc_codec.render.backend import choose, load
from pgsvc_codec.splats import Splats

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # true of machines that have one, too


def python(program: str, **variables: str) -> str:
    """What a program prints in a fresh interpreter without Triton's, but for what `variables` say."""
    left_out = "TRITON_INTERPRET", "PGSVC_DEVICE"
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**environment, **variables}
    )
    return done.stdout


@pytest.mark.parametrize("device", ["", "abacus", "cuda:", "cuda:-1", "cuda:x", "CPU", "cuda:12345"])
def test_cuda_or_cpu_are_the_only_names(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device: got {device}, allowed auto, cpu, cuda, cuda:N"):
        choose(device)


def test_without_cuda_auto_is_the_cpu_says_why_and_imports_no_torch() -> None:
    program = "import sys\nfrom pgsvc_codec.render.backend import choose, load\n"
    program += "print(choose('auto')); print(load('auto').__name__, 'torch' in sys.modules)"
    choice, loaded = python(program, **WITHOUT_GPU).splitlines()
    assert choice.startswith("Choice(device='cpu', name='cpu', because='")
    assert "NVIDIA driver" in choice
    assert loaded == "pgsvc_codec.render.cpu False"


def test_cuda_that_is_not_there_is_refused_with_the_cause() -> None:
    program = "from pgsvc_codec.errors import BackendError\nfrom pgsvc_codec.render.backend import load\n"
    program += "try:\n    load('cuda')\nexcept BackendError as error:\n    print(error)"
    (said,) = python(program, **WITHOUT_GPU).splitlines()
    assert said.startswith("device cuda: ")
    assert "NVIDIA driver" in said
    assert said.endswith("; allowed auto, cpu")


def test_interpreted_cuda_must_be_asked_for() -> None:
    program = "from pgsvc_codec.render.backend import choose\n"
    program += "for device in ('auto', 'cuda', 'cuda:0'): print(*choose(device)[:3], sep=', ')"
    auto, first, also = python(program, TRITON_INTERPRET="1").splitlines()
    assert auto.startswith("cpu, cpu, ")
    assert first == also == "cuda:0, cuda:0 interpreted on the CPU, TRITON_INTERPRET is set"


def test_auto_is_what_the_environment_says_with_or_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSVC_DEVICE", "cpu")
    assert choose("auto")[:3] == ("cpu", "cpu", "PGSVC_DEVICE is set")
    assert choose("cpu").because is None
    monkeypatch.setenv("PGSVC_DEVICE", "cuda:99")
    with pytest.raises(BackendError, match="device cuda:99: "):
        choose("auto")
    monkeypatch.setenv("PGSVC_DEVICE", "gpu")
    with pytest.raises(ConfigError, match="PGSVC_DEVICE: got gpu, allowed auto, cpu, cuda, cuda:N"):
        choose("auto")
    assert choose("cpu").device == "cpu"


def test_cuda_device_beyond_the_last() -> None:
    with pytest.raises(BackendError, match="device cuda:99: "):
        load("cuda:99")


def test_cuda_parts_that_fail_are_told_in_one_line() -> None:
    assert one_line(RuntimeError("\n  a cause\nand its story")) == "RuntimeError: a cause"
    assert one_line(ValueError()) == "ValueError"


def test_cuda_painting_is_compared_with_the_reference() -> None:
    assert painting_part(lambda: load("cpu")).works

    class Dim:
        """Paints half of what it should."""

        fit_step = load("cpu").fit_step

        @staticmethod
        def render(splats: Splats, *scene):  # type: ignore[no-untyped-def]
            return load("cpu").render(splats, *scene) / 2

    dim = painting_part(Dim)
    assert (dim.works, "paints otherwise than the reference" in dim.detail) == (False, True)

    def fails() -> Dim:
        raise OSError("no disk\nat all")

    assert painting_part(fails).detail == "the rasteriser cannot paint (OSError: no disk)"


def test_cuda_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_DRIVER", "libnone.so.1")
    find_driver.cache_clear()
    missing = find_driver()
    find_driver.cache_clear()
    assert isinstance(missing, str)
    assert missing.startswith("no NVIDIA driver (libnone.so.1: ")


@pytest.mark.cuda
def test_auto_is_the_first_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSVC_DEVICE", "auto")
    driver = find_driver()
    assert not isinstance(driver, str)
    choice = choose("auto")
    assert choice == choose("cuda")
    assert (choice.device, choice.name) == ("cuda:0", f"cuda:0 {driver.devices[0]}")
    assert choice.gpus == tuple(range(len(driver.devices)))
    assert load("auto") is load("cuda:0")
    with pytest.raises(BackendError, match=f"allowed 0..{len(driver.devices) - 1}"):
        choose(f"cuda:{len(driver.devices)}")


@pytest.mark.cuda
def test_every_part_of_cuda_works() -> None:
    from pgsvc_codec.render.backend import cuda_parts

    assert [part for part in cuda_parts() if not part.works] == []
