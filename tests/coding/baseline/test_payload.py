"""Payloads: what the encoder has decoded is what both decoders decode, bit by bit, at the promised size."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_decoder import SpecError, SpecLayerDecoder

from pgsvc_codec.coding.baseline.entropy import RangeEncoder
from pgsvc_codec.coding.baseline.payload import LayerDecoder, LayerEncoder
from pgsvc_codec.coding.baseline.quant import (
    Codebooks,
    QuantTables,
    ScalarQuantizer,
    cholesky_levels,
    dequantize_inter,
    dequantize_intra,
    position_fraction_bits,
    quantize_inter,
    quantize_intra,
)
from pgsvc_codec.errors import CorruptError, FormatError
from pgsvc_codec.splats import MIN_LENGTH, Splats


def random_splats(rng, count, channels=3):
    """A layer as fits leave it: means anywhere, lengths log-normal around 4 pixels, colours Laplace."""
    lengths = 4 * np.exp(0.6 * rng.standard_normal((count, 2)))
    return Splats(
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], 2 * rng.standard_normal(count), lengths[:, 1]], 1).astype(np.float32),
        rng.laplace(0, 0.1, (count, channels)).astype(np.float32),
    )


def moved(rng, splats):
    """Where a next frame's fit could leave them: most a little off, some not at all."""
    still = rng.random((len(splats), 1)) < 0.3

    def shift(values, width):
        return np.where(still, values, values + width * rng.standard_normal(values.shape)).astype(np.float32)

    return Splats(shift(splats.means, 0.004), shift(splats.cholesky, 0.2), shift(splats.colors, 0.02))


def k_means(points, entries, rng):
    centres = points[rng.choice(len(points), min(entries, len(points)), replace=False)]
    for _ in range(6):
        nearest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        centres = np.stack(
            [points[nearest == i].mean(0) if (nearest == i).any() else centres[i] for i in range(len(centres))]
        )
    return centres, points - centres[((points[:, None] - centres) ** 2).sum(2).argmin(1)]


def fitted_tables(rng, cholesky, colors, levels, fraction_bits=11, entries=64):
    low, high = levels
    least, most = (np.quantile(cholesky, q, axis=0) for q in (0.002, 0.998))
    scale = np.maximum((most - least) / (high - low), 1e-3).astype(np.float32)
    offset = (least - low * scale).astype(np.float32)
    first, residuals = k_means(colors, entries, rng)
    books = Codebooks.on_grid([first, k_means(residuals, entries, rng)[0]])
    return QuantTables(ScalarQuantizer(scale, offset, low, high), books, fraction_bits)


def plain_tables(layer, *, inter, channels=3, entries=(5, 3), fraction_bits=11):
    """Tables that fit nothing in particular; an entry of 0 lets differences be none."""
    low, high = cholesky_levels(layer, inter=inter)
    scale = np.array([0.25, 0.25, 0.25], np.float32)
    offset = np.zeros(3, np.float32) if inter else (-low * scale - 4).astype(np.float32)
    rng = np.random.default_rng(sum(entries))
    stages = [rng.normal(0, 0.1, (count, channels)) * (np.arange(count) > 0)[:, None] for count in entries]
    return QuantTables(ScalarQuantizer(scale, offset, low, high), Codebooks.on_grid(stages), fraction_bits)


def assert_same(got, expected):
    if isinstance(got, Splats):
        got = (got.means, got.cholesky, got.colors)
    for ours, theirs in zip(got, (expected.means, expected.cholesky, expected.colors), strict=True):
        assert ours.dtype == theirs.dtype == np.float32
        assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


class Chain:
    """An encoder and both decoders of one layer, that must agree after every payload."""

    def __init__(self, layer, channels):
        self.encoder = LayerEncoder(layer, channels)
        self.decoders = LayerDecoder(layer, channels), SpecLayerDecoder(layer, channels)

    def intra(self, splats, tables, **options):
        return self._check(self.encoder.encode_intra(splats, tables, **options), "intra")

    def inter(self, targets, tables, **options):
        return self._check(self.encoder.encode_inter(targets, tables, **options), "inter")

    def _check(self, payload, kind):
        ours, spec = self.decoders
        assert_same(getattr(ours, f"decode_{kind}")(payload), self.encoder.decoded)
        assert_same(getattr(spec, kind)(payload), self.encoder.decoded)
        assert np.array_equal(ours.background, self.encoder.background)
        assert np.array_equal(spec.background, self.encoder.background)
        return payload


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 120),
    layer=st.integers(0, 2),
    channels=st.sampled_from([1, 3]),
    fraction_bits=st.integers(1, 20),
    entries=st.lists(st.sampled_from([1, 2, 17, 64]), min_size=1, max_size=4),
    clustered=st.booleans(),
)
def test_encoder_and_two_decoders_agree(seed, count, layer, channels, fraction_bits, entries, clustered):
    rng = np.random.default_rng(seed)

    def some(number):
        splats = random_splats(rng, number, channels)
        return Splats(splats.means * np.float32(0.01), splats.cholesky, splats.colors) if clustered else splats

    whole, inter = (
        plain_tables(layer, inter=flag, channels=channels, entries=entries, fraction_bits=fraction_bits)
        for flag in (False, True)
    )
    chain = Chain(layer, channels)
    background = None if layer or rng.random() < 0.5 else rng.random(channels).astype(np.float32)
    chain.intra(some(count), whole, background=background)
    for _ in range(3):
        reference = chain.encoder.decoded
        survivors = rng.random(len(reference)) < rng.choice([0, 0.8, 1])
        background = None if layer or rng.random() < 0.5 else rng.random(channels).astype(np.float32)
        chain.inter(
            moved(rng, reference[survivors]),
            inter,
            survivors=survivors,
            injected=some(int(rng.integers(0, 20))),
            tables_intra=whole,
            background=background,
        )


@pytest.mark.parametrize("layer", [0, 1])
def test_no_drift_over_thirty_frames(layer):
    rng = np.random.default_rng(layer)
    splats = random_splats(rng, 400)
    whole = fitted_tables(rng, splats.cholesky, splats.colors, cholesky_levels(layer, inter=False))
    inter = fitted_tables(
        rng,
        0.2 * rng.standard_normal((400, 3)),
        0.02 * rng.standard_normal((400, 3)),
        cholesky_levels(layer, inter=True),
    )
    chain = Chain(layer, 3)
    chain.intra(splats, whole)
    for _ in range(30):
        reference = chain.encoder.decoded
        survivors = rng.random(len(reference)) < 0.97
        targets = moved(rng, reference[survivors])
        chain.inter(targets, inter, survivors=survivors, injected=random_splats(rng, 12), tables_intra=whole)
        decoded = chain.encoder.decoded[np.arange(len(targets))]
        assert np.abs(decoded.means - targets.means).max() < 2.0**-7
        assert np.abs(decoded.colors - targets.colors).max() < 0.1


def test_a_frame_without_survivors_needs_no_tables_of_differences():
    rng = np.random.default_rng(5)
    whole, other = (plain_tables(0, inter=False, entries=entries) for entries in ((5, 3), (4, 4)))
    chain = Chain(0, 3)
    chain.intra(random_splats(rng, 30), whole)
    nothing, gone = Splats.empty(3), np.zeros(30, bool)
    background = np.full(3, 0.2, np.float32)
    new = random_splats(rng, 40)
    chain.inter(nothing, None, survivors=gone, injected=new, tables_intra=other, background=background)
    assert len(chain.encoder.decoded) == 40
    assert np.array_equal(chain.encoder.background, background)
    inter = plain_tables(0, inter=True)
    survivors = rng.random(40) < 0.7
    targets = moved(rng, chain.encoder.decoded[survivors])
    chain.inter(targets, inter, survivors=survivors, injected=nothing, tables_intra=other)


def test_order_says_where_each_splat_came_from_and_one_call_predicts_the_decoder():
    rng = np.random.default_rng(7)
    splats, extra = random_splats(rng, 300), random_splats(rng, 40)
    whole, inter = plain_tables(1, inter=False), plain_tables(1, inter=True)
    encoder = LayerEncoder(1, 3)
    encoder.encode_intra(splats, whole)
    assert_same(dequantize_intra(quantize_intra(splats, whole), whole)[encoder.order], encoder.decoded)

    survivors = rng.random(300) < 0.9
    reference = encoder.decoded[survivors]
    targets = moved(rng, reference)
    encoder.encode_inter(targets, inter, survivors=survivors, injected=extra, tables_intra=whole)
    predicted = Splats.concatenate(
        [
            dequantize_inter(quantize_inter(targets, reference, inter), reference, inter),
            dequantize_intra(quantize_intra(extra, whole), whole),
        ]
    )
    assert_same(predicted[encoder.order], encoder.decoded)


@pytest.mark.parametrize("layer", [0, 1])
def test_bits_per_splat(layer):
    rng = np.random.default_rng(11)
    splats = random_splats(rng, 1667)
    tables = fitted_tables(
        rng, splats.cholesky, splats.colors, cholesky_levels(layer, inter=False), position_fraction_bits(768, 512)
    )
    payload = LayerEncoder(layer, 3).encode_intra(splats, tables)
    assert 8 * len(payload) <= 44 * len(splats)


def test_sizes_of_frames_that_change_little():
    rng = np.random.default_rng(13)
    whole, inter = plain_tables(0, inter=False), plain_tables(0, inter=True)
    chain = Chain(0, 3)
    chain.intra(random_splats(rng, 1000), whole, background=np.array([0.5, 0.25, 1], np.float32))
    everything = {"survivors": np.ones(1000, bool), "injected": Splats.empty(3), "tables_intra": whole}
    assert chain.inter(chain.encoder.decoded, inter, **everything) == b""
    assert chain.encoder.background.tolist() == [np.float32(128 / 255), np.float32(64 / 255), 1]

    one = chain.encoder.decoded
    means = one.means.copy()
    means[500] += np.float32(0.125)
    first = chain.inter(Splats(means, one.cholesky, one.colors), inter, **everything)
    means = means.copy()
    means[501] -= np.float32(0.125)
    again = chain.inter(Splats(means, one.cholesky, one.colors), inter, **everything)
    assert len(again) <= 32 < len(first)  # tables travel once


def test_tables_are_sent_again_when_their_arrays_were_changed_in_place():
    rng = np.random.default_rng(17)
    splats, tables = random_splats(rng, 50), plain_tables(0, inter=False)
    chain = Chain(0, 3)
    chain.intra(splats, tables)
    tables.cholesky.scale[:] *= np.float32(1.5)
    chain.intra(splats, tables)


def test_empty_layers_and_the_last_splat_gone():
    whole, inter = plain_tables(0, inter=False), plain_tables(0, inter=True)
    chain = Chain(0, 3)
    assert chain.intra(Splats.empty(3), whole) == b""
    nothing = {"survivors": np.zeros(0, bool), "tables_intra": whole}
    assert chain.inter(Splats.empty(3), inter, injected=Splats.empty(3), **nothing) == b""
    chain.inter(Splats.empty(3), inter, injected=random_splats(np.random.default_rng(0), 1), **nothing)
    chain.inter(Splats.empty(3), inter, survivors=np.zeros(1, bool), injected=Splats.empty(3), tables_intra=whole)
    assert len(chain.encoder.decoded) == 0
    chain.intra(Splats.empty(3), whole, background=np.ones(3, np.float32))


def test_a_thousand_splats_in_one_place():
    one = random_splats(np.random.default_rng(0), 1)
    splats = Splats(*(np.repeat(array, 1000, axis=0) for array in (one.means, one.cholesky, one.colors)))
    chain = Chain(1, 3)
    chain.intra(splats, plain_tables(1, inter=False))
    assert len(chain.encoder.decoded) == 1000


def test_lengths_are_raised_and_positions_clamped():
    splats = Splats(
        np.array([[-3, 3], [1, -0.0]], np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)
    )
    tables = plain_tables(1, inter=False, channels=1)
    low, high = cholesky_levels(1, inter=False)
    zero = ScalarQuantizer(np.ones(3, np.float32), np.zeros(3, np.float32), low, high)
    chain = Chain(1, 1)
    chain.intra(splats, QuantTables(zero, tables.colors, 24))
    largest = 1 - 2.0**-11
    assert sorted(chain.encoder.decoded.means.tolist()) == [[-1, largest], [largest, 0]]
    assert chain.encoder.decoded.cholesky.tolist() == [[MIN_LENGTH, 0, MIN_LENGTH]] * 2


# Decoding these otherwise is a change of the format.
GOLDEN_SPLATS = Splats(
    np.array([[-0.75, -0.625], [-0.5, 0.375], [-0.25, -0.125], [0, 0], [0.25, 0.875], [0.5, -1]], np.float32),
    np.array([[1, 0, 2], [0.25, 3, 4], [5, -1.5, 6], [7, 0, 8], [9, 0.25, 10], [11, 1, 12]], np.float32),
    np.array([[0], [0.03125], [0.09375], [0.125], [0.15625], [-0.03125]], np.float32),
)
GOLDEN_SURVIVORS = np.array([1, 1, 0, 1, 1, 1], bool)
GOLDEN_INTRA = (
    "30008099c7e9cdbe21ea008021ea008000000080ffd20200010000009ba4c09929fea0774a90e0278c79937cc1108a8846da6019"
    "35cd8d8d03f023af4d05bac12007800d56036117f9056d241282986980c92c28e721cc497b457dc388e0a254a774af0eacb8ab16"
    "fcc03d4316ca71ff"
)
GOLDEN_INTER = (
    "5785601963b5aaa426801846008018464e00000000008062a6fb420033c1c6b6ba944f5eac236d5c94e32caeaea9908dba01932b"
    "13d6b1353791796989afe9c0932ca45f6fe8c063586b8e321b936e54a27405c4dba7433b90ed000d91e5bdad01358a0589948257"
    "426ecd0daecd48c6"
)


def golden_encoder():
    books = Codebooks.on_grid([[[0], [0.125]], [[0], [0.03125], [-0.03125]]])
    scale, offset = np.full(3, 0.25, np.float32), np.array([0, -8, 0], np.float32)
    whole = QuantTables(ScalarQuantizer(scale, offset, 0, 63), books, 11)
    inter = QuantTables(ScalarQuantizer(scale, offset * 0, -16, 15), books, 11)
    encoder = LayerEncoder(0, 1)
    yield encoder.encode_intra(GOLDEN_SPLATS, whole, background=np.array([0.2], np.float32))
    kept = encoder.decoded[GOLDEN_SURVIVORS]
    targets = Splats(kept.means + np.float32(0.09375), kept.cholesky - np.float32(0.25), kept.colors)
    injected = GOLDEN_SPLATS[:2]
    yield encoder.encode_inter(targets, inter, survivors=GOLDEN_SURVIVORS, injected=injected, tables_intra=whole)


def in_order(splats):
    return splats[np.argsort(splats.means[:, 0], kind="stable")]


@pytest.mark.parametrize("payloads", [(GOLDEN_INTRA, GOLDEN_INTER), None], ids=["constants", "encoder"])
def test_golden_payloads(payloads):
    intra, inter = map(bytes.fromhex, payloads) if payloads else golden_encoder()
    decoder, spec = LayerDecoder(0, 1), SpecLayerDecoder(0, 1)
    first = decoder.decode_intra(intra)
    assert_same(in_order(first), GOLDEN_SPLATS)
    assert_same(spec.intra(intra), first)
    assert decoder.background.tolist() == spec.background.tolist() == [np.float32(0.2)]

    second = decoder.decode_inter(inter)
    kept = first[GOLDEN_SURVIVORS]
    lengths = kept.cholesky - np.float32(0.25)
    lengths[lengths[:, 0] == 0, 0] = 1 / 64
    moved_on = Splats(kept.means + np.float32(0.09375), lengths, kept.colors)
    assert_same(second[:5], moved_on)
    assert_same(in_order(second[5:]), GOLDEN_SPLATS[:2])
    assert_same(spec.inter(inter), second)


@pytest.fixture(scope="module")
def segment():
    """An I and a P payload with every kind of content, and the decoder's splats after each."""
    rng = np.random.default_rng(23)
    splats = random_splats(rng, 200)
    whole = fitted_tables(rng, splats.cholesky, splats.colors, cholesky_levels(0, inter=False))
    encoder = LayerEncoder(0, 3)
    intra = encoder.encode_intra(splats, whole, background=np.full(3, 0.5, np.float32))
    survivors = rng.random(200) < 0.9
    inter = encoder.encode_inter(
        moved(rng, encoder.decoded[survivors]),
        plain_tables(0, inter=True),
        survivors=survivors,
        injected=random_splats(rng, 20),
        tables_intra=whole,
    )
    return intra, inter


def decode_any(layer, channels, intra, inter):
    """Decode both payloads with both decoders, which must agree on splats or on refusal."""
    ours, spec = LayerDecoder(layer, channels), SpecLayerDecoder(layer, channels)
    for kind, payload in (("intra", intra), ("inter", inter)):
        try:
            splats = getattr(ours, f"decode_{kind}")(payload)
        except FormatError:
            with pytest.raises(SpecError):
                getattr(spec, kind)(payload)
            return
        assert np.isfinite(splats.means).all()
        assert (np.abs(splats.cholesky[:, ::2]) >= MIN_LENGTH).all()
        assert_same(getattr(spec, kind)(payload), splats)


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(0, 1), st.sampled_from([1, 3]))
def test_mutated_payloads_are_refused_or_decoded_alike(segment, data, layer, channels):
    payloads = []
    for original in segment:
        payload = bytearray(original)
        for _ in range(data.draw(st.integers(0, 3))):
            payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        payloads.append(bytes(payload[: data.draw(st.sampled_from([len(payload), len(payload) // 8 * 4, 8]))]))
    decode_any(layer, channels, *payloads)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_random_payloads_are_refused_or_decoded_alike(intra, inter):
    decode_any(0, 3, intra, inter)


def test_decoder_refuses_with_reasons(segment):
    intra, inter = segment
    with pytest.raises(CorruptError, match="no frame before it"):
        LayerDecoder(0, 3).decode_inter(inter)
    with pytest.raises(CorruptError, match="allowed a multiple of 4"):
        LayerDecoder(0, 3).decode_intra(intra[:-1])

    coder = RangeEncoder()
    coder.uniform([0, 40000], [2, 2**20 + 1])
    with pytest.raises(CorruptError, match="got 40000 splats in 4 bytes, allowed 2 per byte"):
        LayerDecoder(0, 3).decode_intra(coder.finish()[:4])

    coder = RangeEncoder()
    coder.uniform([0, 5, 0], [2, 2**20 + 1, 2])
    with pytest.raises(CorruptError, match="INTRA quantiser tables: used before any was sent"):
        LayerDecoder(0, 3).decode_intra(coder.finish())

    nan = np.array([0x0000, 0x7FC0] * 6)
    coder = RangeEncoder()
    coder.uniform(np.concatenate([[0, 5, 1], nan]), np.concatenate([[2, 2**20 + 1, 2], np.full(12, 65536)]))
    coder.uniform([10, 0, 0, 9], [24, 4, 64, 25])
    coder.classes(np.eye(1, 41, dtype=np.int32)[0])
    coder.table(np.zeros(3, np.int32), np.eye(1, 41, dtype=np.int64)[0])
    with pytest.raises(CorruptError, match=r"quantiser tables: ScalarQuantizer\.scale"):
        LayerDecoder(0, 3).decode_intra(coder.finish())


def test_encoder_refuses_what_does_not_fit_and_stays_usable():
    rng = np.random.default_rng(29)
    splats, tables, inter = random_splats(rng, 10), plain_tables(1, inter=False), plain_tables(1, inter=True)
    encoder = LayerEncoder(1, 3)
    with pytest.raises(ValueError, match="no frame before it"):
        encoder.encode_inter(splats, inter, survivors=np.ones(10, bool), injected=Splats.empty(3), tables_intra=tables)
    with pytest.raises(ValueError, match="channels: got 1 in splats, 3 in tables, allowed 3"):
        encoder.encode_intra(random_splats(rng, 10, 1), tables)
    with pytest.raises(ValueError, match=r"levels of layer 1, INTRA: got 0\.\.63, allowed -32\.\.31"):
        encoder.encode_intra(splats, plain_tables(0, inter=False))
    with pytest.raises(ValueError, match=r"background: got .* in layer 1"):
        encoder.encode_intra(splats, tables, background=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="a number in means is not finite"):
        encoder.encode_intra(Splats(splats.means * np.float32("nan"), splats.cholesky, splats.colors), tables)

    encoder.encode_intra(splats, tables)
    before = encoder.decoded
    none = Splats.empty(3)
    with pytest.raises(ValueError, match=r"survivors: got bool \(9,\), allowed bool \(10,\)"):
        encoder.encode_inter(splats, inter, survivors=np.ones(9, bool), injected=none, tables_intra=tables)
    with pytest.raises(ValueError, match="targets: got 9 splats for 10 survivors"):
        encoder.encode_inter(splats[:9], inter, survivors=np.ones(10, bool), injected=none, tables_intra=tables)
    with pytest.raises(ValueError, match="tables: got none for the differences of 10 survivors"):
        encoder.encode_inter(splats, None, survivors=np.ones(10, bool), injected=none, tables_intra=tables)
    fine = plain_tables(1, inter=True, fraction_bits=21)
    with pytest.raises(ValueError, match=r"INTER position fraction bits: got 21, allowed 1\.\.20"):
        encoder.encode_inter(splats, fine, survivors=np.ones(10, bool), injected=none, tables_intra=tables)
    assert encoder.decoded is before


def test_decoded_splats_have_contiguous_rows():
    rng = np.random.default_rng(5)
    encoder, decoder = LayerEncoder(0, 3), LayerDecoder(0, 3)
    whole, inter = plain_tables(0, inter=False), plain_tables(0, inter=True)
    frames = [decoder.decode_intra(encoder.encode_intra(random_splats(rng, 50), whole))]
    extra = random_splats(rng, 5)
    for survivors, injected in ((np.ones(50, bool), Splats.empty(3)), (rng.random(50) < 0.5, extra)):
        targets = moved(rng, encoder.decoded[survivors])
        payload = encoder.encode_inter(targets, inter, survivors=survivors, injected=injected, tables_intra=whole)
        frames.append(decoder.decode_inter(payload))
    for splats in frames:
        assert all(array.flags.c_contiguous for array in (splats.means, splats.cholesky, splats.colors))


def test_large_frames_decode_in_whole_arrays():
    rng = np.random.default_rng(31)
    encoder = LayerEncoder(0, 3)
    payload = encoder.encode_intra(random_splats(rng, 12000), plain_tables(0, inter=False, entries=(64, 64)))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        LayerDecoder(0, 3).decode_intra(payload)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1  # a few ms; symbol by symbol in Python it would be 0.3 s
