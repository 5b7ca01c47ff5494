"""Does it fit: what the manifest says a policy costs, what is refused at a rate, and what the refusal offers instead."""

from __future__ import annotations

import re

import pytest

from puffer_edge.device import budget, cost, target
from puffer_edge.errors import DoesNotFit
from puffer_edge.export import page
from puffer_edge.integer.image import Image
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import make
from tests import samples
from tests.integer import cart

RP2040 = target.load("rp2040")


def image(hidden: tuple[int, ...], activation: str = "relu") -> Image:
    program = cart.program("clip", hidden, activation)
    steps = make(program, Shield.build(program.contract, cart.STAGES), program.contract.observe(cart.observations(program.contract, 64))[0], steps=4)
    return Image(program.contract, program, Shield.build(program.contract, cart.STAGES), steps)


LARGE, SMALL = image((64, 64)), image((8,))


@pytest.mark.parametrize("name", target.names())
def test_the_manifest_says_what_a_policy_costs_on_every_target(name: str) -> None:
    board = target.load(name)
    held = budget.manifest_cost(SMALL, board)
    assert held["flash_bytes"] == held["engine_bytes"] + held["image_bytes"]
    assert held["ram_bytes"] >= held["activation_bytes"] + held["memory_bytes"] + held["engine_ram_bytes"] > 0
    assert (held["engine_ram_bytes"] > 0) == (board.firmware == "c")
    assert len(held["ticks"]) == (len(cost.engines(board)) if board.core else 0)
    for k, tick in enumerate(held["ticks"]):
        assert tick["engine"] == cost.engines(board)[k]
        assert tick["label"] in cost.LABELS
        assert 0 < tick["us"] <= tick["cold_us"]
        assert tick["share_of_period"] == pytest.approx(tick["cold_us"] * 50 / 1e6, abs=1e-4)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["mlp", "conv_gru", "depthwise", "lstm"])
def test_a_tick_is_predicted_for_every_kind_of_network_wherever_the_core_is_known(name: str, profile: str) -> None:
    policy = samples.network(name)
    seen, starts = samples.episodes(policy.contract, 100)
    program, shield = quantize(policy, seen, starts, profile), Shield.none(policy.contract)
    held = Image(policy.contract, program, shield, make(program, shield, policy.contract.observe(seen)[0], steps=4))
    for board in map(target.load, target.names()):
        found = [tick["engine"] for tick in budget.manifest_cost(held, board)["ticks"]]
        assert found == (list(cost.engines(board)) if board.core else [])


def test_the_engine_of_the_firmware_comes_first() -> None:
    assert [one.engine for one in budget.predictions(SMALL, RP2040)] == ["c", "micropython"]
    assert [one.engine for one in budget.predictions(SMALL, target.load("esp32"))] == ["micropython", "c"]
    assert [one.engine for one in budget.predictions(SMALL, target.load("nrf52840"))] == ["c"]


def test_a_rate_that_holds_is_not_refused() -> None:
    budget.check_rate(LARGE, RP2040, 500)
    budget.check_rate(LARGE, target.load("host"), 1e6)  # nothing is predicted, nothing is refused


def test_a_demand_that_nothing_can_check_is_said_to_be_unchecked() -> None:
    assert budget.manifest_cost(SMALL, RP2040, 500)["demand"] == {"rate_hz": 500, "checked": True}
    held = budget.manifest_cost(SMALL, target.load("host"), 500)
    assert held["demand"] == {"rate_hz": 500, "checked": False}
    assert page.tick_words(held)[-1] == "so the demand of 500 Hz was not checked"


def test_a_refusal_names_the_numbers_and_what_would_fit() -> None:
    with pytest.raises(DoesNotFit) as raised:
        budget.check_rate(LARGE, RP2040, 2000)
    text = str(raised.value)
    assert (raised.value.needs, raised.value.has) == (pytest.approx(budget.predictions(LARGE, RP2040)[0].cold_us, abs=0.1), 250)
    assert "emulated" in text and "rp2040 at 2000 Hz" in text and "not timed on a board" in text
    most = int(re.search(r"fits up to (\d+) Hz", text)[1])  # type: ignore[index]
    budget.check_rate(LARGE, RP2040, most - 1)
    with pytest.raises(DoesNotFit):
        budget.check_rate(LARGE, RP2040, most + 2)
    assert re.search(r"boards that hold it: .*teensy41 \d+ µs \(modelled, engine c\)", text)


def test_the_width_that_is_offered_holds_the_rate_and_a_wider_one_does_not() -> None:
    width = budget.widest_hidden(LARGE, RP2040, 2000)
    assert width is not None and 8 < width < 64
    budget.check_rate(image((width, width)), RP2040, 2000)
    with pytest.raises(DoesNotFit, match=f"hidden layers of {width}"):
        budget.check_rate(image((width + 8, width + 8)), RP2040, 2000)


def test_a_rate_beyond_every_net_says_so() -> None:
    with pytest.raises(DoesNotFit, match="no hidden layer is narrow enough for 100000 Hz"):
        budget.check_rate(SMALL, RP2040, 100_000)


def test_the_other_engine_is_offered_where_it_is_fast_enough() -> None:
    with pytest.raises(DoesNotFit, match=r"engine micropython\).*the c engine takes \d+ µs \(modelled\)"):
        budget.check_rate(LARGE, target.load("esp32"), 500)


def test_what_is_too_large_is_refused_with_its_numbers() -> None:
    with pytest.raises(DoesNotFit, match="KiB of flash for the policy image, stm32f4 has 16: try narrower layers"):
        budget.check_size(image((128, 128)), target.load("stm32f4"))
    budget.check_size(LARGE, target.load("stm32f4"))
