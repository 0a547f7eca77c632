"""The arithmetic of a plan, by hand, and what must hold of it whatever the recipe."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envgym_trainers.planning.arithmetic import DECODING_SHARE, GEMM_SHARE, Load, checkpoint_bytes, memory, times
from envgym_trainers.planning.devices import DEVICES, Device
from envgym_trainers.planning.shapes import ModelShape

SHAPE = ModelShape(
    parameters=1000,
    active=900,
    largest_layer=100,
    adapted=50,
    layers=4,
    hidden=8,
    queries=8,
    keys=4,
    inner=16,
    vocabulary=20,
    positions=512,
)
LOAD = Load(
    episodes=8,
    concurrency=4,
    context=100,
    tokens=80,
    sampled=40,
    micro_batch=80,
    checkpointing="full",
    width=2,
)
DEVICE = Device(memory=1e6, bandwidth=1e4, flops_16bit=1e6, flops_32bit=1e5, source="by hand")


def test_memory_of_a_16_bit_model_by_hand() -> None:
    """2 + 4 + 8 + 4 bytes a parameter; 4 conversations of 100 tokens with 2·4 elements in each of 4 layers."""
    everything = 6 * 8 + 2 * 8 + 2 * 4 + 4 * 16
    assert memory(SHAPE, LOAD) == {
        "weights": 2000,
        "gradients": 4000,
        "optimizer": 8000,
        "masters": 4000,
        "activations": 80 * 2 * (4 * 8 + everything),
        "logits": 80 * 20 * 4 * 3,
        "keys and values": 4 * 100 * 2 * 4 * 4 * 2,
    }


def test_a_float32_model_is_its_own_master_and_adapters_alone_have_moments() -> None:
    whole = memory(SHAPE, dataclasses.replace(LOAD, width=4))
    assert "masters" not in whole
    assert (whole["weights"], whole["optimizer"]) == (4000, 8000)
    lora = memory(SHAPE, dataclasses.replace(LOAD, lora_rank=2, reference=True))
    assert (lora["weights"], lora["gradients"], lora["optimizer"]) == (2000 + 400, 400, 800)
    assert "reference" not in lora
    assert memory(SHAPE, dataclasses.replace(LOAD, reference=True))["reference"] == 2000
    assert memory(SHAPE, dataclasses.replace(LOAD, critic=True))["optimizer"] == 16000


def test_devices_share_the_state_and_not_the_engines_weights() -> None:
    found = memory(SHAPE, dataclasses.replace(LOAD, devices=4, copies=1))
    assert found["optimizer"] == 2000
    assert found["gathered layers"] == 2 * 100 * 2
    assert found["whole copies"] == 2000
    assert found["keys and values"] == 4 * 100 * 2 * 4 * 4 * 2  # all in the first process
    assert memory(SHAPE, dataclasses.replace(LOAD, cache_limit=10.0))["keys and values"] == 10.0
    elsewhere = memory(SHAPE, dataclasses.replace(LOAD, devices=4, samples_elsewhere=True))
    assert not {"whole copies", "keys and values"} & elsewhere.keys()


def test_times_by_hand() -> None:
    """A decoding step reads 900 parameters and 4 halves of a conversation: 2·(900 + 4·1280) bytes."""
    found = times(SHAPE, LOAD, DEVICE)
    steps, read = 8 * 40 / 4, 2 * (900 + 4 * 2 * 4 * 4 * 40)
    assert found.decoding_floor == pytest.approx(steps * read / 1e4)
    assert found.decoding == pytest.approx(steps * read / 1e4 / DECODING_SHARE)
    forward = 2 * 900 + 2 * 8 * 4 * 80
    assert found.prefill == pytest.approx(8 * 40 * forward / (1e6 * GEMM_SHARE))
    # Forward, forward again, and backward, which is twice as much.
    assert found.learning == pytest.approx(8 * 80 * forward * 4 / (1e6 * GEMM_SHARE))
    assert found.needed_rate == pytest.approx(8 * 40 / found.learning)
    assert found.step == pytest.approx(found.decoding + found.prefill + found.learning)
    shared = times(SHAPE, dataclasses.replace(LOAD, devices=4), DEVICE)
    assert (shared.decoding, shared.prefill) == (found.decoding, found.prefill)
    assert shared.learning == found.learning / 4


def test_a_checkpoint_holds_weights_masters_and_moments() -> None:
    assert checkpoint_bytes(SHAPE, LOAD) == 14_000
    assert checkpoint_bytes(SHAPE, dataclasses.replace(LOAD, width=4)) == 12_000
    assert checkpoint_bytes(SHAPE, dataclasses.replace(LOAD, lora_rank=2)) == 100 * 12


@given(
    st.sampled_from(sorted(DEVICES)),
    st.sampled_from(["off", "selective", "full"]),
    st.integers(2, 64),
    st.booleans(),
)
def test_more_devices_need_less_each_and_no_floor_is_beaten(
    name: str, checkpointing: str, devices: int, wide: bool
) -> None:
    load = dataclasses.replace(LOAD, checkpointing=checkpointing, width=4 if wide else 2, copies=1)
    two, many = (sum(memory(SHAPE, dataclasses.replace(load, devices=n)).values()) for n in (2, devices))
    assert many <= two
    found = times(SHAPE, dataclasses.replace(load, devices=devices), DEVICES[name])
    assert found.decoding >= found.decoding_floor > 0
    kept = [memory(SHAPE, dataclasses.replace(load, checkpointing=how))["activations"] for how in
            ("full", "selective", "off")]  # fmt: skip
    assert kept == sorted(kept)
