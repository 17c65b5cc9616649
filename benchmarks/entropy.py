"""How long it takes to turn the payloads of `main` streams into splats, by type of frame.

    python benchmarks/entropy.py STREAM.pgs... [--rounds 20]

One row per stream and type: frames, slots and bytes of a frame (all layers, means), bits per slot, and milliseconds of
one thread.  A frame's time is the sum over its layers, each the least of all rounds, in seconds that the thread had
the processor; kernels are compiled before.  Rows are added to `results/entropy.tsv`; those that are there are not
measured again.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import experiment
from results_file import ResultsFile

from pgsvc_codec.coding.main.gop import FrameStep, coding_order
from pgsvc_codec.coding.main.layer import LayerDecoder
from pgsvc_codec.format.constants import MAIN
from pgsvc_codec.format.container import StreamReader

KEYS = ["stream", "type"]
COLUMNS = [*KEYS, "frames", "slots", "bytes", "bits_per_slot", "ms", "ms_12k"]


class Spent(NamedTuple):
    """On one frame."""

    slots: int
    size: int
    seconds: float


def frames_of(reader: StreamReader, rounds: int) -> dict[str, list[Spent]]:
    """What every frame of a stream took, by type."""
    video = reader.header.video
    spent: dict[str, list[Spent]] = defaultdict(list)
    for gop in range(len(reader.gops)):
        payloads = [reader.read_segment(gop, layer) for layer in range(reader.available_layers(gop))]
        size = (video.channels, video.width, video.height)
        decoders = [LayerDecoder(layer, *size) for layer in range(len(payloads))]
        steps: list[FrameStep] = []
        for position in range(len(payloads[0]) if payloads else 0):
            slots = length = 0
            seconds = 0.0
            for layer, payload in enumerate(frame[position] for frame in payloads):
                best = float("inf")
                for _ in range(rounds):
                    decoder = copy.deepcopy(decoders[layer])
                    started = time.thread_time()
                    if not position:
                        state = decoder.decode_intra(payload)
                    else:
                        state = decoder.decode_inter(payload, steps[position], decoders[0].field if layer else None)
                    best = min(best, time.thread_time() - started)
                decoders[layer] = decoder
                slots, length, seconds = slots + len(state), length + len(payload), seconds + best
            if not position:
                assert decoders[0].header is not None
                steps = coding_order(len(payloads[0]), decoders[0].header.anchor_distance)
            kind = "I" if not position else "P" if steps[position].future is None else "B"
            spent[kind].append(Spent(slots, length, seconds))
    return spent


def rows_of(stream: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of a stream, but for its name."""
    with StreamReader(stream.read_bytes()) as reader:
        if reader.header.profile.profile != MAIN:
            raise SystemExit(f"{stream}: got profile {reader.header.profile.profile}, allowed {MAIN}, main")
        frames_of(reader, 1)
        spent = frames_of(reader, rounds)
    rows = []
    for kind, frames in spent.items():
        slots, size, seconds = (sum(column) for column in zip(*frames, strict=True))
        rows.append(
            {
                "type": kind,
                "frames": len(frames),
                "slots": slots / len(frames),
                "bytes": size / len(frames),
                "bits_per_slot": 8 * size / max(slots, 1),
                "ms": 1e3 * seconds / len(frames),
                "ms_12k": 12e6 * seconds / max(slots, 1),
            }
        )
    return rows


def main() -> None:
    """Measure what has no row yet."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("streams", nargs="+", type=Path, metavar="STREAM")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="the best of which counts")
    options = parser.parse_args()
    with ResultsFile("entropy", COLUMNS, KEYS) as results:
        for stream in options.streams:
            if results.matching(stream=stream.name):
                continue
            for row in rows_of(stream, options.rounds):
                results.add(stream=stream.name, **row)


if __name__ == "__main__":
    main()
