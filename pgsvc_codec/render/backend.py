"""Which rasteriser runs: the choice behind ``--device``, explained where it is not what was hoped for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import NamedTuple

from pgsvc_codec.errors import BackendError, ConfigError
from pgsvc_codec.render.availability import Part, find_driver, is_interpreted, one_line, painting_part
from pgsvc_codec.render.rasterizer import Rasterizer

_DEVICES = "auto, cpu, cuda, cuda:N"
_VARIABLE = "PGSVC_DEVICE"


class Choice(NamedTuple):
    """The device that an option means on this machine."""

    device: str  # ``cpu`` or ``cuda:N``; for `choose` this means itself
    name: str  # for people, with its make
    because: str | None = None  # where it is not what one might think: why, as a clause
    gpus: tuple[int, ...] = ()  # numbers of all CUDA devices that the option allows, this one first


def choose(device: str) -> Choice:
    """The device that is meant; ``auto`` is the first CUDA device if kernels run there, else the CPU.

    The environment may say what ``auto`` is instead: PGSVC_DEVICE, one of the other names.  Where Triton is asked to
    interpret its kernels (TRITON_INTERPRET=1), ``cuda`` means that, and ``auto`` the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` (the first) or ``cuda:N``.

    Raises:
        ConfigError: this names no device.
        BackendError: the device is not there, or does not work.
    """
    wanted = os.environ.get(_VARIABLE, "auto") if device == "auto" else "auto"
    if wanted != "auto":
        if _parsed(wanted) is None:
            raise ConfigError(f"{_VARIABLE}: got {wanted}, allowed {_DEVICES}")
        return choose(wanted)._replace(because=f"{_VARIABLE} is set")
    match = _parsed(device)
    if match is None:
        raise ConfigError(f"device: got {device}, allowed {_DEVICES}")
    if device == "cpu":
        return Choice("cpu", "cpu")
    index = int(match[1] or 0)
    driver = find_driver()
    interpreted = is_interpreted()
    count = 1 if interpreted else 0 if isinstance(driver, str) else len(driver.devices)
    if device != "auto":
        if index >= count > 0:
            raise BackendError(f"device {device}: got number {index}, allowed 0..{count - 1}")
        if problem := _problem(index):
            raise BackendError(f"device {device}: {problem}; allowed auto, cpu")
        if interpreted:
            return Choice("cuda:0", "cuda:0 interpreted on the CPU", "TRITON_INTERPRET is set")
    elif isinstance(driver, str):
        return Choice("cpu", "cpu", driver)
    elif problem := "TRITON_INTERPRET is set" if interpreted else _problem(index):
        return Choice("cpu", "cpu", problem)
    assert not isinstance(driver, str), "kernels run on a device that no driver shows"
    gpus = (index,) if match[1] else tuple(range(count))
    return Choice(f"cuda:{index}", f"cuda:{index} {driver.devices[index]}", gpus=gpus)


def _parsed(device: str) -> re.Match[str] | None:
    return re.fullmatch(r"auto|cpu|cuda(?::([0-9]{1,4}))?", device)


@cache
def _problem(index: int) -> str | None:
    """Why the CUDA rasteriser does not run on a device; None where it does."""
    return next((part.detail for part in cuda_parts(index) if part.is_needed and not part.works), None)


def cuda_parts(index: int = 0) -> Iterator[Part]:
    """What the CUDA rasteriser stands on, the cheapest first, then itself; each is tried when it is asked for.

    Where `is_interpreted`, no driver is needed, and what follows it is tried in host memory.

    Args:
        index: of the device that is tried.
    """
    interpreted = is_interpreted()
    driver = find_driver()
    if isinstance(driver, str):
        yield Part("driver", False, driver, is_needed=not interpreted)
    else:
        devices = ", ".join(f"{number} {name}" for number, name in enumerate(driver.devices))
        yield Part("driver", True, f"runs CUDA {driver.version} and older on {devices}")
    try:
        from pgsvc_codec.render.cuda import parts
    except (ImportError, OSError) as error:
        yield Part("torch", False, one_line(error))
        return
    yield parts.torch_part(is_needed=not interpreted)
    device = "cpu" if interpreted else f"cuda:{index}"
    usable = parts.device_part(device)
    yield usable
    if usable.works:
        yield parts.triton_part(device)
        yield painting_part(lambda: parts.open_rasterizer(device))


def cpu_parts() -> Iterator[Part]:
    """What the CPU rasteriser stands on, then itself; kernels may have to be compiled, see `on_compilation`."""
    try:
        import numba
    except (ImportError, OSError) as error:
        yield Part("numba", False, one_line(error))
        return
    yield Part("numba", True, f"numba {numba.__version__}, {numba.get_num_threads()} threads")
    painting = painting_part(_load_cpu)
    yield painting
    if painting.works:
        from pgsvc_codec.jit import folder_of
        from pgsvc_codec.render import cpu

        yield Part("kernels", True, f"kept in {folder_of(cpu._render_tiles)}")


def load(device: str) -> Rasterizer:
    """The rasteriser of a device; the same one each time.

    Args:
        device: see `choose`.

    Raises:
        ConfigError, BackendError: see `choose`.
    """
    choice = choose(device)
    if choice.device == "cpu":
        return _load_cpu()
    from pgsvc_codec.render.cuda.parts import open_rasterizer

    return open_rasterizer("cpu" if is_interpreted() else choice.device)


def _load_cpu() -> Rasterizer:
    from pgsvc_codec.render import cpu

    return cpu


def on_compilation(tell: Callable[[bool], None]) -> AbstractContextManager[None]:
    """While the context lasts, call `tell` once if kernels must be compiled: seconds in which nothing else happens.

    Its argument is whether they will be found on disk next time.
    """
    try:
        from numba.core.event import Event, Listener, install_listener

        from pgsvc_codec.jit import passing_folders
    except ImportError:  # nor are there any kernels to compile
        return nullcontext()

    class FirstCompilation(Listener):
        """Does not hear of kernels that are found in the cache on disk."""

        told = False

        def on_start(self, event: Event) -> None:
            if not self.told:
                self.told = True
                tell(not passing_folders)

        def on_end(self, event: Event) -> None:
            pass

    return install_listener("numba:compile", FirstCompilation())
