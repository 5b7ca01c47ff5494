"""C99: the shared engine, the policy as data, and the shield as one printed function; no malloc, no libm, no float."""

from __future__ import annotations

from pathlib import Path

import puffer_edge.firmware
from puffer_edge.export.source import Source

ENGINE = Path(puffer_edge.firmware.__file__).parent / "c"
FIRMWARE_ONLY = ("pe_board", "pe_device", "pe_link", "pe_store")
"""Link, the device behind it, flash slots and board hooks: a board's firmware needs them, an exported policy does not."""


def engine_files() -> dict[str, bytes]:
    """The engine's sources and headers, by file name; what only a board's firmware needs is not among them."""
    names = sorted(p.name for p in ENGINE.glob("pe_*.[ch]") if p.stem not in FIRMWARE_ONLY)
    return {name: (ENGINE / name).read_bytes() for name in names}


def files(source: Source) -> dict[str, bytes]:
    """``c/``: engine, ``policy.h``, ``policy.c`` and an example ``main.c``."""
    texts = {"policy.h": header(source), "policy.c": body(source), "main.c": example(source)}
    return {f"c/{name}": data for name, data in (engine_files() | {k: v.encode() for k, v in texts.items()}).items()}


def header(source: Source) -> str:
    """``policy.h``: channels, digest, and the two symbols."""
    c, name = source.image.contract, source.name
    rows = [
        f" *   observation[{i}]  {ch.name}, {ch.unit}, {ch.low:g} … {ch.high:g}, value × 2^{ch.fraction_bits}" for i, ch in enumerate(c.observations)
    ]
    rows += [
        f" *   action[{j}]  {ch.name}, {ch.unit}, {ch.low:g} … {ch.high:g}, safe {ch.safe:g}, value × 2^{ch.fraction_bits}"
        for j, ch in enumerate(c.actions)
    ]
    stages = ", ".join(source.image.shield.stages) or "none"
    return f"""/* {c.name}: a policy behind its shield, printed by puffer-edge; do not edit.
 *
{chr(10).join(rows)}
 *
 * rate {c.rate_hz:g} Hz, policy every {c.policy_divider} tick(s), fallback after {c.staleness_limit} tick(s) without an observation
 * shield: {stages}
 * contract {c.digest.hex()}
 */
#ifndef PE_POLICY_{name.upper()}_H
#define PE_POLICY_{name.upper()}_H

#include <stdint.h>

#define {name.upper()}_OBSERVATIONS {c.n_observations}
#define {name.upper()}_ACTIONS {c.n_actions}
#define {name.upper()}_PERIOD_US {c.period_us}u
#define {name.upper()}_IMAGE_BYTES {len(source.image.data)}u
#define {name.upper()}_SCRATCH_BYTES {2 * source.image.program.activation_bytes}u

/* The policy image (docs/image.md), 4-aligned; give it to pe_open. */
extern const uint8_t {name}_image[{name.upper()}_IMAGE_BYTES];

/* The shield: in = x[n], raw[m], previous[m], fallback; out = applied[m], stage bits. */
void {name}_shield(const int32_t *v, int32_t *out);

#endif
"""


def body(source: Source) -> str:
    """``policy.c``: the image as an array, and the shield."""
    data, name = source.image.data, source.name
    octets = "\n".join("    " + ",".join(str(b) for b in data[i : i + 32]) + "," for i in range(0, len(data), 32))
    return f"""/* {source.policy.name}: data and shield, printed by puffer-edge; do not edit. */
#include "policy.h"

#if defined(__GNUC__)
__attribute__((aligned(8)))
#endif
const uint8_t {name}_image[{name.upper()}_IMAGE_BYTES] = {{
{octets}
}};

{source.image.shield.to_c(f"{name}_shield")}"""


def example(source: Source) -> str:
    """``main.c``: runs the policy on any machine, and shows where sensors and actuators go."""
    name = source.name
    return f"""/* Example: opens the policy, replays its own test vectors, then runs one tick. cc -std=c99 -fno-strict-aliasing -O2 *.c && ./a.out
 * On a board, keep pe_open and the loop; replace the two marked lines by your sensors and actuators. */
#include <stdio.h>

#include "pe_engine.h"
#include "policy.h"

static pe_policy policy;
static uint32_t scratch[({name.upper()}_SCRATCH_BYTES + 3u) / 4u];

int main(void)
{{
    int32_t observation[{name.upper()}_OBSERVATIONS] = {{0}}, raw[{name.upper()}_ACTIONS], applied[{name.upper()}_ACTIONS];
    const int32_t problem = pe_open(&policy, {name}_image, {name.upper()}_IMAGE_BYTES);
    if (problem != PE_OK) {{
        printf("the image is refused by check %d\\n", (int)problem);
        return 1;
    }}
    policy.scratch = (uint8_t *)scratch;
    policy.shield = {name}_shield;
    const uint32_t wrong = pe_self_test(&policy);
    if (wrong) {{
        printf("test vector %u differs\\n", (unsigned)(wrong - 1u));
        return 1;
    }}
    /* every {name.upper()}_PERIOD_US microseconds: */
    observation[0] = 0; /* your sensors, in fixed point; pass PE_STEP_MISSED or PE_STEP_INVALID when they fail */
    const uint32_t outcome = pe_tick(&policy, PE_STEP_RESET, observation, raw, applied);
    printf("vectors agree; first action %d, outcome 0x%x\\n", (int)applied[0], (unsigned)outcome); /* your actuators */
    return 0;
}}
"""
