"""cartpole_no_velocity proves memory at control: CartPole that shows where cart and pole are, and not how they move.

Everything else is CartPole's, but for the shield, whose law needs the velocities.
"""

from __future__ import annotations

from puffer_edge.envs import cartpole
from puffer_edge.envs.hidden import hide

ENVIRONMENT = hide(cartpole.ENVIRONMENT, "velocity", "angular_velocity", name="cartpole_no_velocity")
