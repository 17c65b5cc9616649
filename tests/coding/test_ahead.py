"""Splats decoded ahead by threads: the same frames, losses and errors whoever decodes what, and not too far ahead."""

from __future__ import annotations

import random
import threading
import time
from functools import partial

import numpy as np
import pytest
from codec_clips import Clip, stream_of

from pgsvc_codec import Decoder, EncodeConfig
from pgsvc_codec.coding import ahead
from pgsvc_codec.coding.ahead import SplatsAhead
from pgsvc_codec.coding.gop import GopDecoder
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.splats import Splats

BACKGROUND = np.zeros(1, np.float32)


class FakeLayers:
    """Decodes in no time, or after `delay()` seconds; the base says in its first frame how many there are."""

    def __init__(self, frames, delay=None, failures=None):
        self.displays = [0]
        self.decoded = []  # layer and position
        self._frames = frames
        self._delay = delay
        self._failures = failures or {}
        self._done = 0  # frames of the base

    def is_ready(self, layer, position):
        return layer == 0 or position == 0 or position < self._done

    def decode(self, layer, position):
        if self._delay:
            time.sleep(self._delay())
        self.decoded.append((layer, position))
        if (layer, position) in self._failures:
            raise self._failures[layer, position]
        if layer == 0:
            self.displays = list(range(self._frames))
            self._done += 1
        values = np.array([[layer, position, 0]], np.float32)
        return Splats(values[:, :2], values, values[:, :1])

    def background(self, position):
        return BACKGROUND


class FakeGop(GopDecoder):
    def __init__(self, layers, num_layers=3, on_loss=pytest.fail):
        self._layers, self.num_layers, self._on_loss = layers, num_layers, on_loss


@pytest.fixture
def with_threads(monkeypatch):
    return lambda threads: monkeypatch.setattr(ahead, "get_num_threads", lambda: threads)


def splat_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pgsvc-splats")]


def taken(decoder):
    """Numbers of layers and the positions that the splats say they come from, GOP by GOP."""
    return [
        [(len(layers), [int(layer.means[0, 1]) for layer in layers]) for layers, _ in gop] for gop in decoder.gops()
    ]


def settled(gops):
    """How many frames of layers each GOP has decoded when the threads have nothing to do any more."""
    before = None
    while (counts := [len(gop.decoded) for gop in gops]) != before:
        before = counts
        time.sleep(0.05)
    return counts


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_all_frames_come_in_order_whatever_the_threads(with_threads, threads):
    with_threads(threads)
    delays = random.Random(threads)
    gops = [FakeLayers(frames, lambda: delays.random() / 500) for frames in (5, 1, 12, 3)]
    with SplatsAhead(lambda index: FakeGop(gops[index]), len(gops), 3) as decoder:
        shown = taken(decoder)
    assert shown == [[(3, [position] * 3) for position in range(frames)] for frames in (5, 1, 12, 3)]
    assert splat_threads() == []


@pytest.mark.parametrize("threads", [1, 4])
def test_a_layer_that_is_lost_takes_those_above_with_it(with_threads, threads):
    with_threads(threads)
    failures = {(1, 2): CorruptError("middle"), (2, 1): CorruptError("top"), (0, 4): CorruptError("base")}
    lost = []
    gop = FakeGop(FakeLayers(9, failures=failures), on_loss=lambda layer, error: lost.append((layer, str(error))))
    with SplatsAhead([gop, FakeGop(FakeLayers(1))].__getitem__, 2, 3) as decoder:
        assert [[count for count, _ in frames] for frames in taken(decoder)] == [[3, 2, 1, 1], [3]]
    assert lost == [(2, "top"), (1, "middle"), (0, "base")]


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_of_a_thread_comes_in_its_place(with_threads, threads):
    with_threads(threads)

    def open_gop(index):
        if index == 2:
            raise MemoryError("no room for a GOP")
        return FakeGop(FakeLayers(4, failures={(1, 3): MemoryError("no room for a layer")} if index else None))

    for name, last in (("layer", 3), ("GOP", 0)):
        with SplatsAhead(open_gop if name == "layer" else lambda index: open_gop(2 * index), 3, 3) as decoder:
            gops = decoder.gops()
            assert len(list(next(gops))) == 4
            frames = next(gops)
            assert len([next(frames) for _ in range(last)]) == last
            with pytest.raises(MemoryError, match=f"no room for a {name}"):
                next(frames)
        assert splat_threads() == []


def test_one_gop_at_a_time_is_decoded_a_few_frames_ahead(with_threads):
    with_threads(3)
    gops = [FakeLayers(40), FakeLayers(40)]
    with SplatsAhead(lambda index: FakeGop(gops[index]), 2, 3) as decoder:
        frames = next(decoder.gops())
        for number in range(3):
            next(frames)
            assert settled(gops) == [3 * (number + 9), 0]


def test_more_threads_than_layers_decode_further_gops(with_threads):
    with_threads(7)
    gops = [FakeLayers(40) for _ in range(5)]
    with SplatsAhead(lambda index: FakeGop(gops[index]), 5, 3) as decoder:
        frames = next(decoder.gops())
        next(frames)
        assert settled(gops) == [27, 120, 120, 0, 0]
    assert splat_threads() == []


def test_splats_that_wait_are_bounded(with_threads, monkeypatch):
    monkeypatch.setattr(ahead, "_MOST_SPLATS", 12)
    with_threads(7)
    gops = [FakeLayers(40) for _ in range(5)]
    with SplatsAhead(lambda index: FakeGop(gops[index]), 5, 3) as decoder:
        frames = next(decoder.gops())
        next(frames)
        assert 12 <= sum(settled(gops)) < 12 + 2 * 7
        assert sum(1 for _ in frames) == 39


CODECS = {
    "baseline": EncodeConfig(profile="baseline", splats=60, iterations=10, keyint=4, scenecut=0),
    "main": EncodeConfig(profile="main", quality=70, iterations=20, keyint=9, scenecut=0),
}


@pytest.fixture(scope="module", params=CODECS)
def read(request):
    """Header and payloads of a stream, by GOP, layer and frame."""
    data = stream_of(Clip(size=(45, 39), frames=9), CODECS[request.param])[0]
    with Decoder(data, device="cpu") as decoder:
        gops = range(len(decoder.reader.gops))
        return decoder.reader.header, [[decoder.reader.read_segment(gop, layer) for layer in range(3)] for gop in gops]


def damaged(payloads, seed):
    """Some of them with a bit turned over."""
    chance = random.Random(seed)
    payloads = [[bytearray(payload) for payload in layer] for layer in payloads]
    for _ in range(chance.randrange(4)):
        payload = chance.choice([payload for layer in payloads for payload in layer if payload])
        payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
    return [[bytes(payload) for payload in layer] for layer in payloads]


@pytest.mark.parametrize("wanted", [None, 3])
def test_damaged_gops_lose_the_same_with_any_number_of_threads(with_threads, read, wanted):
    header, gops = read
    many = [damaged(gops[seed % len(gops)], seed) for seed in range(12)]

    def open_gop(told, index):
        return GopDecoder(many[index], header, lambda *loss: told.append(list(map(str, loss))), wanted)

    def note(told, frames):
        for layers, background in frames:
            parts = [part for layer in layers for part in (layer.means, layer.cholesky, layer.colors)]
            told.append([part.tobytes() for part in (*parts, background)])

    alone = []
    for index in range(len(many)):
        gop = open_gop(alone, index)
        note(alone, gop.frames(gop.decode))
    assert any(isinstance(loss[0], str) for loss in alone)
    for threads in (1, 4):
        with_threads(threads)
        told = []
        with SplatsAhead(partial(open_gop, told), len(many), 3) as decoder:
            for frames in decoder.gops():
                note(told, frames)
        assert told == alone
