"""The WebAssembly engine, its JavaScript module and its page: bit for bit what the reference computes, in node and in a browser."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.contract import Contract
from puffer_edge.device import target
from puffer_edge.device.bundle import Bundle
from puffer_edge.engines import verify
from puffer_edge.errors import Unsupported
from puffer_edge.export import wasm
from puffer_edge.export.bundle import export
from puffer_edge.firmware import build
from puffer_edge.firmware.shared import protocol
from puffer_edge.integer.reference import Runner
from puffer_edge.spaces import to_fixed
from tests import samples
from tests.export import browser
from tests.export.javascript_node import node

MODULE = wasm.FIRMWARE / "wasm" / "puffer_edge.mjs"
REPORT = json.loads((build.PREBUILT / "pe_engine.json").read_text())
LOAD = "const policy = await js.Policy.load({ image: new URL(image), engine: new URL(engine), stages: ['envelope', 'limit'] });"
SHIELD = ({"stage": "slew", "per_second": {"force": 30.0}}, {"stage": "limit"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return samples.bundle(tmp_path_factory.mktemp("cartpole") / "bundle", "cartpole", "wasm")


def in_node(script: str, image: Path, **values: Any) -> Any:
    """A script with ``policy`` loaded from an image."""
    return node(LOAD + script, {"js": MODULE}, image=image.as_uri(), engine=wasm.ENGINE.as_uri(), **values)


def network(name: str, head: str, profile: str, folder: Path) -> Bundle:
    """A bundle of one of the sample networks."""
    policy = samples.network(name, head)
    seen, starts = samples.episodes(policy.contract, 600)
    return export(policy, target.load("wasm"), folder, seen, SHIELD, starts=starts, profile=profile)


def test_the_report_describes_the_module() -> None:
    data = wasm.ENGINE.read_bytes()
    assert (REPORT["bytes"], REPORT["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert data[:8] == b"\0asm\1\0\0\0"
    assert len(data) <= 32 * 1024


def test_it_is_built_from_these_sources() -> None:
    try:
        data, report = build.build_wasm()
    except Unsupported as error:
        pytest.skip(f"{error} (toolchain)")
    made_by = {key: REPORT[key] for key in ("compiler", "linker")}
    if {key: report[key] for key in made_by} != made_by:
        pytest.skip(f"the prebuilt module comes from {made_by}: another toolchain gives other bytes")
    assert data == wasm.ENGINE.read_bytes(), "run make firmware"
    assert report == REPORT


def test_the_module_imports_nothing() -> None:
    script = "const m = new WebAssembly.Module(readFileSync(engine)); return [WebAssembly.Module.imports(m), WebAssembly.Module.exports(m).length];"
    imports, exports = node(script, {}, engine=str(wasm.ENGINE))
    assert imports == [] and exports > 10


def test_constants_are_the_protocols_and_every_check_has_words() -> None:
    steps, outcomes, reasons, checks = node("return [js.STEP, js.OUTCOME, js.REASON, js.CHECKS];", {"js": MODULE})
    assert steps == {name: getattr(protocol, f"STEP_{name}") for name in steps}
    assert outcomes == {name: getattr(protocol, name) for name in outcomes}
    assert reasons == {
        "SHIFT": protocol.REASON_SHIFT,
        "STAGES": protocol.MAX_STAGES,
        "INVALID": protocol.REASON_INVALID,
        "STALE": protocol.REASON_STALE,
    }
    header = (build.C / "pe_engine.h").read_text()
    count = len(set(re.findall(r"\bPE_BAD_\w+", header)))
    own = re.findall(r"\b(?:UNSEALED|NO_MEMORY) = (\d+)", (build.WASM / "module.c").read_text())
    assert list(checks) == [*map(str, range(1, count + 1)), *own]


def test_a_bundles_vectors_replay_in_node(bundle: Bundle) -> None:
    image, vectors = bundle.path / "wasm" / "policy.bin", bundle.path / "vectors.bin"
    script = "return [policy.replay(new Uint8Array(readFileSync(vectors))), policy.digests, policy.state];"
    replayed, digests, state = in_node(script, image, vectors=str(vectors))
    assert replayed == {"steps": 512, "different": 0, "first": None}
    assert digests == bundle.manifest["digests"]
    runner = Runner(bundle.image.program, bundle.image.shield)
    assert state == runner.state_digests()[0]


def test_a_changed_vector_is_found(bundle: Bundle, tmp_path: Path) -> None:
    data = bytearray((bundle.path / "vectors.bin").read_bytes())
    data[100 * len(data) // 512 - 1] ^= 1  # the last byte of step 99: of its state digest
    (tmp_path / "vectors.bin").write_bytes(data)
    script = "return policy.replay(new Uint8Array(readFileSync(vectors)));"
    assert in_node(script, bundle.path / "policy.bin", vectors=str(tmp_path / "vectors.bin")) == {"steps": 512, "different": 1, "first": 99}


@pytest.mark.parametrize(("name", "head", "profile"), [("mlp", "discrete", "int8"), ("mlp", "tanh", "int8"), ("deep", "clip", "int8")])
def test_random_ticks_have_the_references_bits(name: str, head: str, profile: str, tmp_path: Path) -> None:
    rows = verify(network(name, head, profile, tmp_path / "bundle"), 20_000, 3, ["wasm"])
    if rows[0].vectors == 0:
        pytest.skip(rows[0].note)
    assert [(row.format, row.vectors, row.mismatches) for row in rows] == [("wasm", 20_000, 0)]


def test_a_policy_every_few_ticks(tmp_path: Path) -> None:
    policy = samples.policy(samples.many_channels(), (8,))
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 7))
    (row,) = verify(export(policy, target.load("wasm"), tmp_path / "bundle", seen, ({"stage": "limit"},)), 20_000, 3, ["wasm"])
    assert (row.vectors, row.mismatches) == (20_000, 0)


def test_floats_become_the_contracts_integers() -> None:
    rng = np.random.default_rng(0)
    ties = np.arange(-4000, 4000) / 2 * 2.0**-8
    values = np.concatenate([ties, rng.normal(0, 3, 4000), rng.normal(0, 1e9, 500), [1e300, -1e300, 0.0, -0.0, 5e-324, 0.49999999999999994 / 256]])
    bits = np.array([8], np.int32)
    limit = np.array([2**31 - 1], np.int32)
    wanted = to_fixed(values[:, None], bits, -limit, limit)[0][:, 0]
    script = "const c = [{ fraction_bits: 8 }]; return values.map((v) => [js.toFixed([v], c)[0], js.toPhysical(js.toFixed([v], c), c)[0]]);"
    found = np.array(node(script, {"js": MODULE}, values=values.tolist()))
    np.testing.assert_array_equal(found[:, 0], wanted)
    np.testing.assert_array_equal(found[:, 1], wanted * 2.0**-8)
    assert (
        node("return [NaN, Infinity, -Infinity].map((v) => js.toFixed([0, v], [{fraction_bits: 1}, {fraction_bits: 1}]));", {"js": MODULE})
        == [None] * 3
    )


def test_a_tick_in_physical_units(bundle: Bundle) -> None:
    script = """
    const first = policy.tick([0.1, 0, 0.02, 0], { reset: true });
    return [first, policy.tick([0, NaN, 0, 0]), policy.tick(null), policy.tick([9, 0, 0.3, 0]),
      policy.tick({ angle: 0.02, position: 0.1, angular_velocity: 0, velocity: 0 }, { reset: true }), policy.tick([], { missed: true })];"""
    first, invalid, missed, beyond, named, dropped = in_node(script, bundle.path / "policy.bin")
    c = bundle.image.contract
    tick = Runner(bundle.image.program, bundle.image.shield).tick(c.observe([[0.1, 0, 0.02, 0]])[0], protocol.STEP_RESET)
    assert (first["raw"], first["applied"]) == (c.physical_action(tick.raw)[0].tolist(), c.physical_action(tick.applied)[0].tolist())
    assert (first["outcome"], first["state"]) == (tick.outcome[0], tick.state[0])
    assert (invalid["flags"], invalid["reasons"], invalid["applied"]) == (["invalid"], ["invalid"], [0])
    assert missed["flags"] == ["missed"] == dropped["flags"]
    assert beyond["flags"] == ["saturated", "policy_ran"] and beyond["reasons"] == ["envelope"]
    assert named == first


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("policy.tick([1, 2, 3])", "has 4 channels (position, velocity, angle, angular_velocity), this one has 3"),
        ("policy.tick({ position: 0, tilt: 0 })", "unknown channel tilt; missing channel velocity"),
        ("policy.tick(['1', 0, 0, 0])", 'position is "1", not a number'),
        ("policy.replay(new Uint8Array(7))", "no whole number of steps of 36 bytes"),
        ("await js.Policy.load({ image: bytes, engine: new URL(engine), digest: '00' })", "another image than the expected one"),
        ("bytes[200] ^= 1; await js.Policy.load({ image: bytes, engine: new URL(engine) })", "SHA-256 does not match"),
        ("await js.Policy.load({ image: bytes.subarray(0, 400), engine: new URL(engine) })", "SHA-256 does not match"),
        ("await js.Policy.load({ image: new Uint8Array(20), engine: new URL(engine) })", "SHA-256 does not match"),
        ("await js.Policy.load({ image: new Uint8Array(17 << 20), engine: new URL(engine) })", "more than 16777216"),
    ],
)
def test_errors_name_what_is_wrong(call: str, says: str, bundle: Bundle) -> None:
    script = f"const bytes = new Uint8Array(readFileSync(new URL(image))); try {{ {call} }} catch (error) {{ return [error.name, error.message]; }}"
    name, message = in_node(script, bundle.path / "policy.bin")
    assert name == "PolicyError" and says in message


def test_an_image_whose_seal_is_renewed_is_still_checked(bundle: Bundle, tmp_path: Path) -> None:
    data = bytearray((bundle.path / "policy.bin").read_bytes())
    data[12] = 200  # more observations than there may be
    body = bytes(data[:-32])
    (tmp_path / "policy.bin").write_bytes(body + hashlib.sha256(body).digest())
    script = "try { await js.Policy.load({ image: new URL(image), engine: new URL(engine) }) } catch (error) { return error.message }"
    message = node(script, {"js": MODULE}, image=(tmp_path / "policy.bin").as_uri(), engine=wasm.ENGINE.as_uri())
    assert message == "the image is refused: a count, the period or the buffer size is out of range"


def test_without_a_plant_the_page_says_why(tmp_path: Path) -> None:
    made = network("mlp", "clip", "int8", tmp_path / "bundle")
    page = (made.path / "wasm" / "index.html").read_text()
    assert not (made.path / "wasm" / wasm.PLANT).exists()
    assert '"plant": ""' in page and "no plant that puffer-edge has" in page


def test_a_contract_of_another_time_gets_no_plant(bundle: Bundle) -> None:
    changed: Contract = replace(bundle.image.contract, staleness_limit=7)
    policy = replace(bundle.policy, contract=changed)
    source: Any = type("Source", (), {"policy": policy})
    assert wasm.environment_of(source) is None


RAN = """(async () => {
  const { demo } = await import('./page.mjs');
  const page = await demo;
  page.running = false;
  return { csv: page.loop.trace.csv(), episodes: page.loop.episode, status: document.getElementById('status').textContent,
    strips: [...document.querySelectorAll('.row')].map((row) => row.textContent) };
})()"""

DISTURB = """(async () => {
  const page = await (await import('./page.mjs')).demo;
  const [push, missed, invalid, noise] = document.querySelectorAll('#push input, #faults input');
  for (const [input, value] of [[push, 4], [missed, 0.3], [invalid, 0.2], [noise, 0.02]]) {
    input.value = value;
    input.dispatchEvent(new Event('input'));
  }
  document.getElementById('speed').value = '4';
  document.getElementById('speed').dispatchEvent(new Event('change'));
  return page.loop.push[0];
})()"""


@pytest.mark.toolchain("chromium")
def test_the_page_runs_in_a_browser_with_the_references_bits(bundle: Bundle) -> None:
    with browser.served(bundle.path / "wasm") as address, browser.opened() as page:
        page.open(f"{address}/index.html")
        page.wait("document.getElementById('board')?.hidden === false")
        assert page.run(DISTURB) == pytest.approx(4, abs=0.1)
        page.wait("(async () => (await (await import('./page.mjs')).demo).loop.trace.rows.length > 120)()")
        ran = page.run(RAN)
        drawn = page.run(
            "[...document.querySelectorAll('canvas')].every((c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean))"
        )
        assert page.faults == []
    assert "replayed the 16 test vectors" in ran["status"] and drawn
    assert [row for row in ran["strips"] if row.startswith("envelope")]
    compare(bundle, ran["csv"])


def compare(bundle: Bundle, csv: str) -> None:
    """Every tick of a saved trace, again with the reference."""
    header, *lines = csv.splitlines()
    rows = np.array([[int(cell) for cell in line.split(",")] for line in lines])
    n, m = bundle.image.contract.n_observations, bundle.image.contract.n_actions
    assert header == "tick,flags,position,velocity,angle,angular_velocity,force_raw,force_applied,outcome,state"
    assert len(rows) > 120 and rows[0, 1] & protocol.STEP_RESET
    flags, seen = rows[:, 1], rows[:, 2 : 2 + n]
    met = set((flags & ~protocol.STEP_RESET).tolist())  # the page draws them at random: one tick may bear both
    assert 0 in met and any(f & protocol.STEP_MISSED for f in met) and any(f & protocol.STEP_INVALID for f in met)
    runner = Runner(bundle.image.program, bundle.image.shield)
    for k, row in enumerate(rows):
        tick = runner.tick(seen[k : k + 1].astype(np.int32), int(flags[k]))
        wanted = [*tick.raw[0], *tick.applied[0], tick.outcome[0], tick.state[0]]
        assert row[2 + n :].tolist() == [int(value) for value in wanted], f"tick {k}"
    assert rows.shape[1] == 2 + n + 2 * m + 2


@pytest.mark.toolchain("chromium")
def test_a_page_that_cannot_start_says_so(bundle: Bundle, tmp_path: Path) -> None:
    for file in (bundle.path / "wasm").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / "policy.bin").read_bytes())
    data[300] ^= 1
    (tmp_path / "policy.bin").write_bytes(data)
    with browser.served(tmp_path) as address, browser.opened() as page:
        page.open(f"{address}/index.html")
        page.wait("document.getElementById('status')?.className === 'bad'")
        assert "it is damaged" in page.run("document.getElementById('status').textContent")
