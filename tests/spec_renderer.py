"""A second renderer, written from bitstream_spec.md §8 alone: every sample of every splat, float64, NumPy only.

It imports nothing of the package, so that the package and the text are held to each other.
"""

import numpy as np

SUBSAMPLING = {1: (2, 2), 2: (2, 1)}  # §8.2, by chroma
SITING = {0: (0.0, 0.5), 1: (0.5, 0.5), 2: (0.0, 0.0)}


def render(video, layers, background, native, size=None):
    """The planes of a frame, code values, at `size` (default: `native`, that of the level shown).

    `layers` holds (means, cholesky, colors) for each layer of the level.
    """
    width, height = video["width"], video["height"]
    size = size or native
    means, cholesky, colors = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*layers, strict=True))
    x_m, y_m = (means[:, 0] + 1) * width / 2 - 0.5, (means[:, 1] + 1) * height / 2 - 0.5
    planes = []
    for plane in range(colors.shape[1]):
        (l1, l2, l3), gain = widened(video, plane, native, size, cholesky.T)
        peak = 4080 * gain * np.abs(colors).max(axis=1, initial=0.0)
        seen = np.flatnonzero(peak >= 1)
        xs, ys = positions(video, plane, size)
        value = np.full((len(ys), len(xs)), np.float64(background[plane]))
        for n in seen:
            u1 = (xs[None, :] - x_m[n]) / l1[n]
            u2 = (ys[:, None] - y_m[n] - l2[n] * u1) / l3[n]
            q = u1**2 + u2**2
            value += np.where(q <= 2 * np.log(peak[n]), gain[n] * colors[n, plane] * np.exp(-q / 2), 0)
        max_code = 2 ** video["depth"] - 1
        planes.append(np.floor(np.clip(value, 0, 1) * max_code + 0.5).astype(int))
    return planes


def positions(video, plane, size):
    """§8.2: where the columns and the rows of a plane lie, in full-size luma pixels."""
    subsampling = SUBSAMPLING.get(video["chroma"], (1, 1)) if plane else (1, 1)
    axes = []
    for full, length, s, o in zip(
        (video["width"], video["height"]), size, subsampling, SITING[video["siting"]], strict=True
    ):
        d = full / length
        samples = np.arange(-(-length // s))
        axes.append((d - 1) / 2 + d * ((o if s > 1 else 0) + s * samples))
    return axes


def widened(video, plane, native, size, factors):
    """§8.4: factors of the splats on an output plane of the stream's own kind, and the gain of their colours."""
    subsampling = SUBSAMPLING.get(video["chroma"], (1, 1)) if plane else (1, 1)
    v_x, v_y = (
        max(0, (full / length * s) ** 2 - (full / own * s) ** 2) / 12
        for full, own, length, s in zip((video["width"], video["height"]), native, size, subsampling, strict=True)
    )
    l1, l2, l3 = factors
    a, b, c = l1**2 + v_x, l1 * l2, l2**2 + l3**2 + v_y  # the covariance [[a, b], [b, c]]
    l1_wide = np.sqrt(a)
    l3_wide = np.sqrt(c - b**2 / a)
    return (l1_wide, b / l1_wide, l3_wide), np.abs(l1 * l3) / (l1_wide * l3_wide)
