"""A second decoder of the main profile: the programs of bitstream_spec.md §7, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from main_chains import HEIGHT, INDEX, WIDTH, next_frame, whole_state

from pgsvc_codec.coding.main import contexts, models, range_coder
from pgsvc_codec.coding.main.gop import ANCHOR_DISTANCES, coding_order
from pgsvc_codec.coding.main.layer import FrameHeader, LayerEncoder
from pgsvc_codec.coding.main.predict import MotionField, field_shape
from pgsvc_codec.coding.main.state import MAX_CLASS, STEPS, classes_of
from pgsvc_codec.format.constants import MAX_SPLATS

SPEC = (Path(__file__).parents[3] / "bitstream_spec.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """The names that the programs of the section define."""
    section = SPEC[SPEC.index("## 7. Coding: main profile") : SPEC.index("## 8. ")]
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)), names)
    return names


def test_tables_agree(program: dict[str, Any]) -> None:
    assert tuple(program["STEPS"]) == STEPS
    assert program["MAX_SPLATS"] == MAX_SPLATS
    for table in ("M", "X"):
        assert {name: getattr(contexts, name) for name in program[table]} == program[table]
    for name in ("PROBABILITIES", "COUNTS", "WEIGHTS"):
        assert program[name] == getattr(models, name)
    states = models.initial_models()
    assert len(program["INITIAL_MODELS"]) == contexts.NUM_MODELS
    for (probability, count), model in zip(program["INITIAL_MODELS"], states, strict=False):
        assert (probability << range_coder.COUNT_BITS | count) == model
    assert np.array_equal(np.ravel(program["INITIAL_WEIGHTS"]), states[contexts.NUM_MODELS :])


def test_classes_agree(program: dict[str, Any]) -> None:
    amplitudes = np.random.default_rng(0).integers(-3000, 3000, (200, 3), np.int32) >> np.arange(200)[:, None] % 10
    assert program["class_of"]([STEPS[0] << MAX_CLASS + 2], STEPS[0]) == MAX_CLASS
    for step in (STEPS[0], STEPS[17], STEPS[40]):
        expected = [program["class_of"](row, step) for row in amplitudes.tolist()]
        assert classes_of(amplitudes, step).tolist() == expected


@pytest.mark.parametrize("frames", [1, 2, 7, 9, 18])
@pytest.mark.parametrize("distance", ANCHOR_DISTANCES)
def test_orders_agree(program: dict[str, Any], frames: int, distance: int) -> None:
    expected = [tuple(step[:4]) for step in coding_order(frames, distance)]
    assert list(program["coding_order"](frames, distance)) == expected


@pytest.mark.parametrize(("seed", "channels", "distance"), [(0, 3, 1), (1, 3, 4), (2, 1, 2), (3, 3, 8)])
def test_both_decode_the_same(program: dict[str, Any], seed: int, channels: int, distance: int) -> None:
    rng = np.random.default_rng(seed)
    encoders = [LayerEncoder(layer, channels, WIDTH, HEIGHT) for layer in range(2)]
    layers = [program["Layer"](layer, channels, WIDTH, HEIGHT) for layer in range(2)]
    header = FrameHeader((9, 8, 7)[:channels], distance)
    for encoder, layer in zip(encoders, layers, strict=True):
        state = whole_state(rng, 60, channels)
        layer.intra(encoder.encode_intra(state, INDEX, None if layer.layer else header))
        assert_same(layer, encoder, 0)
    assert layers[0].anchor_distance == distance
    for step in coding_order(6, distance)[1:]:
        field = background = None
        if step.future is None:
            vectors = rng.integers(-9, 10, (*field_shape(WIDTH, HEIGHT, 32), 2)).astype(np.int16)
            field = MotionField(32, vectors) if rng.random() < 0.8 else None
            background = (1, 2, 3)[:channels]
        for encoder, layer in zip(encoders, layers, strict=True):
            targets, reborn = next_frame(rng, encoder, step, field, 0.3)
            payload = encoder.encode_inter(
                step,
                targets,
                INDEX,
                reborn=reborn,
                field=field,
                background=None if layer.layer else background,
            )
            layer.inter(payload, *step[:4], field=layers[0].field if layer.layer else None)
            assert_same(layer, encoder, step.display)
        assert tuple(layers[0].backgrounds[step.display]) == encoders[0].backgrounds[step.display]


def assert_same(layer: Any, encoder: LayerEncoder, display: int) -> None:
    slots, ours = layer.frames[display], encoder.frames[display]
    assert len(slots) == len(ours.state)
    for place, part in enumerate((ours.state.positions, ours.state.shapes, ours.state.amplitudes)):
        assert [list(slot[place]) for slot in slots] == part.tolist()
    assert [slot[3] for slot in slots] == ours.births.tolist()
    states = np.array([probability << range_coder.COUNT_BITS | count for probability, count in layer.models])
    assert np.array_equal(states, encoder._models[: contexts.NUM_MODELS])
