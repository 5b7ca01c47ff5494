"""WebAssembly: the prebuilt C engine, a module that runs the policy in a browser or in node, and a page with the plant around it."""

from __future__ import annotations

import json
from pathlib import Path

import puffer_edge.firmware
from puffer_edge import envs
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import Unsupported
from puffer_edge.export import javascript
from puffer_edge.export.source import Source

FIRMWARE = Path(puffer_edge.firmware.__file__).parent
ENGINE = FIRMWARE / "prebuilt" / "pe_engine.wasm"
MODULES = ("puffer_edge.mjs", "page.mjs", "loop.mjs", "drawing.mjs")
PLANT = "plant.mjs"
PLACE = "/*ABOUT*/"


def files(source: Source) -> dict[str, bytes]:
    """``wasm/``: serve it with any static server, for example ``python3 -m http.server -d wasm``, and open its ``index.html``.

    A program needs ``pe_engine.wasm``, ``policy.bin`` and ``puffer_edge.mjs`` alone.
    """
    plant, without = plant_module(source)
    held = {name: (FIRMWARE / "wasm" / name).read_bytes() for name in MODULES}
    held |= {ENGINE.name: ENGINE.read_bytes(), "policy.bin": source.image.data, "index.html": page(source, plant is not None, without).encode()}
    if plant is not None:
        held[PLANT] = plant.encode()
    return {f"wasm/{name}": data for name, data in held.items()}


def environment_of(source: Source) -> Environment | None:
    """The environment that the policy was trained in, if it is one of ours and still has the policy's contract."""
    name = str(source.policy.origin.get("environment", ""))
    if name not in envs.names():
        return None
    trained = Imperfections.from_dict(source.policy.origin.get("plant", {}))
    environment = imperfect(envs.load(name), trained.ideal, source.policy.contract).under(source.policy.contract)
    return environment if environment.contract.digest == source.policy.contract.digest else None


def plant_module(source: Source) -> tuple[str | None, str]:
    """The plant's JavaScript, or None and the reason for which the page has sliders in its place."""
    environment = environment_of(source)
    if environment is None:
        return None, "The policy comes with no plant that puffer-edge has: the sliders are its sensors."
    try:
        return javascript.plant(environment), ""
    except Unsupported as error:
        return None, f"The sliders are its sensors: {error}."


def page(source: Source, plant: bool, without: str) -> str:
    """``index.html``, which knows the policy's name, the image's digest and the names of the shield's stages."""
    about = {
        "name": source.policy.name,
        "digest": source.image.digest.hex(),
        "stages": list(source.image.shield.stages),
        "plant": PLANT if plant else "",
        "withoutPlant": without,
    }
    text = json.dumps(about).replace("<", "\\u003c")  # so that no name ends the script element
    return (FIRMWARE / "wasm" / "index.html").read_text("utf-8").replace(PLACE, text)
