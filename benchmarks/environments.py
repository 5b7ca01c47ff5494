"""How fast environments are: steps a second through the pointer of pe_env.h, one thread, and what compiling them costs.

    python benchmarks/environments.py [--rows 48 4096] [--seconds 0.3] [NAME …]

The loop over calls is compiled too, so that nothing of Python is measured, and the clock is the thread's processor time; actions are
random and fixed, and all rows start again every 64 steps. "plant" is the environment in fixed point behind its default shield.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from record import save, show

from puffer_edge import envs
from puffer_edge.envs.composition import compose
from puffer_edge.envs.environment import Environment
from puffer_edge.integer.shield import Shield

HORIZON = 64


def compiled_loop(environment: Environment) -> Any:
    """A function of (calls, arrays …) that makes so many calls of step_many."""
    import numba

    assert environment.dynamics is not None and environment.dynamics.native is not None
    step_many = environment.dynamics.native.functions[1]

    @numba.njit
    def loop(calls: Any, key: Any, step: Any, action: Any, state: Any, seen: Any, reward: Any, cost: Any, ended: Any, alive: Any) -> None:
        for _ in range(calls):
            step_many(
                len(state),
                0,
                key.ctypes,
                step.ctypes,
                seen.ctypes,
                action.ctypes,
                state.ctypes,
                seen.ctypes,
                reward.ctypes,
                cost.ctypes,
                ended.ctypes,
                alive.ctypes,
            )

    return loop


def rate(environment: Environment, n: int, seconds: float) -> float:
    """Steps a second, the best of five."""
    c, agents, rng = environment.contract, environment.agents, np.random.default_rng(0)
    loop, best = compiled_loop(environment), 0.0
    low, high = [a.low for a in c.actions], [a.high for a in c.actions]
    action = rng.uniform(low, high, (n, agents, c.n_actions))
    state, seen = environment.start(0, range(n)), np.zeros((n, agents, c.n_observations))
    reward, cost = np.zeros((n, agents)), np.zeros((n, agents))
    ended, alive = np.zeros((n, agents), np.uint8), np.ones((n, agents), np.uint8)
    key, step, mask = np.zeros(2, np.uint32), np.zeros(n, np.uint64), np.ones(n, np.uint8)
    arrays = (key, step, action, state, seen, reward, cost, ended, alive)
    pointer = environment.pointer()
    loop(1, *arrays)
    for _ in range(5):
        spent, calls = 0.0, 0
        while spent < seconds / 5:
            pointer.reset(0, key, step, mask, state, seen)
            began = time.thread_time()
            loop(HORIZON, *arrays)
            spent, calls = spent + time.thread_time() - began, calls + HORIZON
        best = max(best, calls * n / spent)
    return best


def main() -> None:
    """Print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*envs.names(), *envs.sanity_names()])
    parser.add_argument("--rows", type=int, nargs="+", default=[48, 4096])
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    import numba  # noqa: F401  it is not a part of what compiling takes

    found: list[dict[str, Any]] = []
    for name in options.names:
        bare = envs.load(name)
        around = [(f"{name}, plant", compose(bare, Shield.build(bare.contract, bare.shield)).environment)]
        for label, environment in [(name, bare), *around]:
            began = time.perf_counter()
            environment.pointer()
            spent = time.perf_counter() - began
            assert environment.dynamics is not None and environment.dynamics.native is not None
            how = "cached" if environment.dynamics.native.cached else "compiled"
            rates = {f"steps_per_us_{n}_rows": round(rate(environment, n, options.seconds) / 1e6, 2) for n in options.rows}
            found.append({"environment": label, "ready_s": round(spent, 2), "how": how, **rates})
            print(found[-1], flush=True)
    show("steps through the pointer, one thread, processor time", found)
    save("environments", settings={"rows": options.rows, "seconds": options.seconds}, rows=found)


if __name__ == "__main__":
    main()
