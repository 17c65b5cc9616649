"""What quantisation takes from float fits: streams whose splats were fitted first and quantised then.

    python benchmarks/quantised.py [FOLDER ...] [--splats 5000] [--strategy joint sequential]
                                   [--preset paper] [--iterations N] [--tuning 0.25]

FOLDERs hold pictures (default: Kodak under PGSVC_DATA).  The float fits are those of `table1.py` with the same options;
they are then tuned under quantisation for a share of their iterations (preset paper: a quarter, so that a fifth of all
is) and written, and PSNR is that of the decoded stream.  Rows are added to `results/quantised.tsv`.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean

import experiment
from experiment import LEVELS, per_level
from fits import Picture, fit_levels, read_picture
from material import KODAK, find
from results_file import ResultsFile

from pgsvc_codec.decoder import Decoder
from pgsvc_codec.encoder import encode
from pgsvc_codec.media.source import open_source
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.video import Chroma

KEYS = ["picture", *experiment.KEYS, "tuning"]
COLUMNS = [*KEYS, *experiment.level_columns("float", "psnr"), "loss", "size_bytes", "bits_per_splat", "seconds"]


def decoded_psnr(data: bytes, picture: Picture) -> list[float]:
    """Of every level of a stream of one frame."""
    with Decoder(data) as decoder:
        values = []
        for level in LEVELS:
            meter = PsnrMeter(picture.info.max_code, is_rgb=picture.info.chroma is Chroma.RGB)
            meter.add(picture.frame, next(decoder.frames(layers=level)).planes)
            values.append(meter.combined)
        return values


def measure(results: ResultsFile, options: argparse.Namespace) -> None:
    """Quantise what is not in the results yet."""
    settings = product(options.splats, options.strategy, find(options.folders))
    for splats, strategy, path in settings:
        keys = {"picture": path.name, **experiment.keys_of(options, strategy, splats), "tuning": options.tuning}
        if results.has(**keys):
            continue
        picture = read_picture(path)
        config = experiment.config_of(keys)
        fitted = fit_levels(picture, config)
        floats = fitted.psnr(picture.info)
        # of all iterations the method spends a fixed share under quantisation; the float part is there already
        total = replace(config, iterations=round(keys["iterations"] * (1 + options.tuning)))
        started = time.monotonic()
        with open_source(str(path), frames=1) as source, io.BytesIO() as sink:
            encode(source, sink, total, start=fitted.fit)
            data = sink.getvalue()
        seconds = time.monotonic() - started
        shown = decoded_psnr(data, picture)
        results.add(
            **keys,
            **per_level("float", floats),
            **per_level("psnr", shown),
            loss=floats[-1] - shown[-1],
            size_bytes=len(data),
            bits_per_splat=8 * len(data) / splats,
            seconds=seconds,
        )


def report(rows: list[dict[str, str]]) -> None:
    """Print averages over pictures."""
    for setting in sorted({tuple(row[key] for key in KEYS[1:]) for row in rows}):
        group = [row for row in rows if tuple(row[key] for key in KEYS[1:]) == setting]
        means = {name: fmean(float(row[name]) for row in group) for name in COLUMNS[len(KEYS) :]}
        named = ", ".join(f"{key} {value}" for key, value in zip(KEYS[1:], setting, strict=True))
        worst = max(float(row["loss"]) for row in group)
        print(
            f"{named}, {len(group)} pictures: float {means['float_3']:.2f} dB, quantised {means['psnr_3']:.2f} dB, "
            f"{means['bits_per_splat']:.1f} bits per splat, largest loss {worst:.2f} dB"
        )


def main() -> None:
    """Measure, then report."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[KODAK])
    experiment.add_options(parser, experiment.SPLATS, ("joint",), ("joint", "joint-random", "sequential", "pruning"))
    parser.add_argument("--tuning", type=float, default=0.25, help="iterations under quantisation, of the float fit's")
    options = parser.parse_args()
    with ResultsFile("quantised", COLUMNS, KEYS) as results:
        measure(results, options)
    report(results.rows)


if __name__ == "__main__":
    experiment.run(main)
