"""The pictures of docs/robots.md: each robot is trained once, and the first evaluation episode of what would be deployed is filmed.

python benchmarks/pictures.py [NAME …]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from puffer_edge import envs
from puffer_edge.envs import picture
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.train import train

PICTURES = Path(__file__).parents[1] / "docs" / "robots"
ROBOTS = ("servo", "balancer", "swingup", "furuta", "rover", "quadrotor")


def main() -> None:
    """Train and film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ROBOTS)
    parser.add_argument("--gif", action="store_true", help="films beside the pictures; they are some 0.4 MiB each")
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for name in options.names:
        environment = envs.load(name)
        with tempfile.TemporaryDirectory() as folder:
            run = train(name, out=Path(folder) / name)
        guard = Shield.build(environment.contract, environment.shield)
        for suffix in (".png", ".gif") if options.gif else (".png",):
            path = PICTURES / f"{name}{suffix}"
            episode = picture.film(environment, InFloat(run.policy), guard, 7, path)
            print(f"{path.name}: return {episode.returns[0]:.1f}, {path.stat().st_size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
