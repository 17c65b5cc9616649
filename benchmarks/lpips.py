"""LPIPS with AlexNet (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018).

    python benchmarks/lpips.py WEIGHTS REFERENCE PICTURE

WEIGHTS is a file that is made once, wherever the package lpips and its weights are to be had, outside this folder:

    python -c 'import lpips, torch; torch.save(lpips.LPIPS(net="alex").state_dict(), "lpips-alex.pt")'

That is version 0.1 of the metric, the one that papers report.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import experiment
import torch
from fits import read_picture
from torch.nn import functional

from pgsvc_codec.errors import InputError
from pgsvc_codec.picture import Frame, to_rgb
from pgsvc_codec.video import VideoInfo

# Name in the file, shape of the weights, stride and padding of AlexNet's convolutions; the second and third see
# their input after a max pooling of 3x3 samples, every other one.
_CONVOLUTIONS = (
    ("net.slice1.0", (64, 3, 11, 11), 4, 2),
    ("net.slice2.3", (192, 64, 5, 5), 1, 2),
    ("net.slice3.6", (384, 192, 3, 3), 1, 1),
    ("net.slice4.8", (256, 384, 3, 3), 1, 1),
    ("net.slice5.10", (256, 256, 3, 3), 1, 1),
)
_POOLED = (1, 2)  # of those, by index
_SHIFT = (-0.030, -0.088, -0.188)  # mean and deviation of R, G, B in [-1, 1] that the network was trained with
_SCALE = (0.458, 0.448, 0.450)
_TINY = 1e-10  # keeps features that are all zero what they are
_MIN_SIDE = 31  # pixels, so that a sample is left after both poolings


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """What a file of weights must hold: the shape of each tensor by its name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (name, shape, _, _) in enumerate(_CONVOLUTIONS):
        shapes |= {
            f"{name}.weight": shape,
            f"{name}.bias": shape[:1],
            f"lin{index}.model.1.weight": (1, shape[0], 1, 1),
        }
    return shapes


class Lpips:
    """The distance, 0 for equal pictures.

    Args:
        path: file of weights.

    Raises:
        SystemExit: the file cannot be read, or does not hold what `weight_shapes` says.
    """

    def __init__(self, path: Path) -> None:
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise SystemExit(f"{path}: cannot be read as weights of LPIPS: {str(error).splitlines()[0]}") from None
        for name, shape in weight_shapes().items():
            got = "nothing" if name not in held else str(tuple(held[name].shape))
            if got != str(shape):
                raise SystemExit(f"{path}: {name}: got {got}, allowed {shape} as lpips.LPIPS(net='alex') has it")
        self._weights = {name: held[name].float() for name in weight_shapes()}

    def distance(self, reference: Frame, picture: Frame, info: VideoInfo) -> float:
        """Of a picture from its reference, both as `info` describes them.

        Raises:
            InputError: the pictures are too small for the network.
        """
        if min(info.width, info.height) < _MIN_SIDE:
            raise InputError(f"LPIPS: got {info.width}x{info.height}, allowed sides of {_MIN_SIDE} and more")
        with torch.inference_mode():
            total = 0.0
            pairs = zip(self._features(reference, info), self._features(picture, info), strict=True)
            for index, (wanted, got) in enumerate(pairs):
                difference = (wanted - got).square()
                total += float(functional.conv2d(difference, self._weights[f"lin{index}.model.1.weight"]).mean())
        return total

    def _features(self, frame: Frame, info: VideoInfo) -> list[torch.Tensor]:
        """[1, C, rows, columns] behind each convolution, of length one over C."""
        rgb = torch.from_numpy(to_rgb(frame, info)).permute(2, 0, 1)[None] / 127.5 - 1
        shift, scale = (torch.tensor(values)[None, :, None, None] for values in (_SHIFT, _SCALE))
        signal = (rgb - shift) / scale
        features = []
        for index, (name, _, stride, padding) in enumerate(_CONVOLUTIONS):
            if index in _POOLED:
                signal = functional.max_pool2d(signal, 3, 2)
            weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
            signal = functional.conv2d(signal, weight, bias, stride, padding).relu()
            features.append(signal / (signal.square().sum(dim=1, keepdim=True).sqrt() + _TINY))
        return features


def main() -> None:
    """Compare two pictures."""
    parser = experiment.parser_of(__doc__)
    for name in ("weights", "reference", "picture"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    reference, picture = (read_picture(path) for path in (options.reference, options.picture))
    if picture.info != reference.info:
        raise InputError(f"{options.picture}: got {picture.info}, allowed {reference.info} as the reference has")
    print(f"{Lpips(options.weights).distance(reference.frame, picture.frame, reference.info):.4f}")


if __name__ == "__main__":
    experiment.run(main)
