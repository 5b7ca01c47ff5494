"""A ball over a fan, whose dynamics are in ``bouncer.rs``: train it with ``puffer-edge train bouncer:BOUNCER``.

rustc --edition 2021 --crate-type cdylib -O bouncer.rs -o libbouncer.so
"""

from pathlib import Path

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.envs.environment import Environment

CONTRACT = Contract(
    "bouncer",
    (ObservationChannel("height", "m", 0.0, 4.0), ObservationChannel("speed", "m/s", -12.0, 12.0)),
    (ActionChannel("fan", "m/s^2", 0.0, 20.0, safe=0.0, initial=0.0),),
    "clip",
    rate_hz=50.0,
)
BOUNCER = Environment.of_library(Path(__file__).parent / "libbouncer.so", CONTRACT, solved=220.0, random_steps=False)
