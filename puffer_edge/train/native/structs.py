"""The structures of ``src/pe_native.h``, field by field."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

MOST_LAYERS, MOST_NETWORKS, MOST_GROUPS, MOST_OUTPUTS, BLOCK = 4, 2, 16, 256, 48
MOST_ACTIONS, MOST_STEPS, ENVIRONMENT_VERSION = 64, 2**31 - 1, 2
STATISTICS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
SAC_STATISTICS = ("critic_loss", "actor_loss", "temperature_loss", "entropy", "temperature", "value")
FAULTS = {1: "an observation", 2: "a reward", 3: "a cost", 4: "a first observation"}
FIRST_OBSERVATION, NO_CHOICE = 4, 5
VALUE_FORMS = ("plain", "clipped", "clamped")
MOST_EPOCHS = 64


def size_of(structure: Any) -> int:
    """Bytes."""
    return ctypes.sizeof(structure)


def _structure(name: str, fields: list[tuple[str, Any]]) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names]


Networks = _structure(
    "Networks",
    [
        ("networks", c_int32),
        ("activation", c_int32),
        ("layers", c_int32 * MOST_NETWORKS),
        ("widths", (c_int32 * (MOST_LAYERS + 1)) * MOST_NETWORKS),
    ],
)
Head = _structure("Head", [("kind", c_int32), ("groups", c_int32), ("sizes", c_int32 * MOST_GROUPS)])
Loss = _structure(
    "Loss",
    [(name, c_double) for name in ("clip", "dual_clip", "value_weight", "value_clip", "entropy_weight", "kl_weight")]
    + [("value_form", c_int32), ("unused", c_int32)],
)
Rollout = _structure(
    "Rollout",
    [("env", c_void_p), ("horizon", c_int64), ("environments", c_int64), ("seed", c_uint32), ("squash", c_int32)]
    + _pointers("state", "parameters", "observed", "step", "elapsed", "episode_return", "episode_cost")
    + [*_pointers("mean", "deviation"), ("clip", c_double), *_pointers("levels", "scale", "offset")]
    + _pointers("observation", "inputs", "choice", "number", "log_prob", "value", "final_value", "cost_value", "final_cost_value")
    + _pointers("reward", "cost", "terminated", "truncated", "alive", "allowed", "finished_return", "finished_cost", "finished_length")
    + [("fault", c_int64 * 3)],
)
Sequence = _structure("Sequence", [(name, c_int64) for name in ("steps", "cells", "rows", "size")] + _pointers("kept", "start"))
Advantages = _structure(
    "Advantages",
    [("horizon", c_int64), ("rows", c_int64)]
    + [(name, c_double) for name in ("discount", "trace_decay", "ratio_clip", "trace_clip", "reward_scale")]
    + _pointers("reward", "value", "final_value", "ratio", "terminated", "truncated", "alive", "advantage", "returns"),
)
Update = _structure(
    "Update",
    [("samples", c_int64), ("minibatch", c_int64), ("epochs", c_int32), ("seed", c_uint32), ("update", c_uint64)]
    + [("normalize_advantage", c_int32), ("unused", c_int32)]
    + [(name, c_double) for name in ("learning_rate", "beta1", "beta2", "epsilon", "max_grad_norm", "stop_kl")]
    + [("loss", Loss)]
    + _pointers("inputs", "log_prob", "value", "advantage", "returns", "choice", "number", "allowed")
    + _pointers("parameters", "first", "second", "adam_steps")
    + [("statistics", c_double * (len(STATISTICS) + 1)), ("epoch_kl", c_double * MOST_EPOCHS), ("epochs_done", c_int32), ("unused_too", c_int32)],
)
Environment = _structure(
    "Environment",
    [(name, c_uint32) for name in ("version", "size", "agents", "n_state", "n_observation", "n_action", "n_parameters", "max_steps")]
    + _pointers("reset_many", "step_many", "allow_many")
    + [("n_choices", c_uint32), ("unused", c_uint32)],
)
SacShape = _structure(
    "SacShape",
    [(name, c_int32) for name in ("inputs", "numbers", "hidden", "critic_hidden")]
    + [(name, c_int32 * (MOST_LAYERS - 1)) for name in ("widths", "critic_widths")]
    + [("activation", c_int32), ("state_noise", c_int32)],
)
Ring = _structure("Ring", [("rows", c_int64), ("slots", c_int64), *_pointers("observation", "action", "reward", "cost", "kind", "place")])
Sac = _structure(
    "Sac",
    [("env", c_void_p), ("ring", Ring)]
    + [(name, c_int64) for name in ("horizon", "batch", "warmup")]
    + [(name, c_int32) for name in ("every", "updates", "n_step", "hold")]
    + [("seed", c_uint32), ("unused", c_int32)]
    + [(name, c_double) for name in ("discount", "follow", "target_entropy", "beta1", "beta2", "epsilon")]
    + [(name, c_double) for name in ("actor_rate", "critic_rate", "temperature_rate")]
    + _pointers("state", "parameters", "observed", "step", "elapsed", "episode_return", "episode_cost", "noise", "age", "ticks", "drawn")
    + [*_pointers("mean", "deviation"), ("clip", c_double), *_pointers("scale", "offset")]
    + _pointers("flat", "first", "second", "target", "adam_steps")
    + _pointers("seen", "reward", "cost", "finished_return", "finished_cost", "finished_length")
    + [("statistics", c_double * len(SAC_STATISTICS)), ("updates_done", c_int64), ("fault", c_int64 * 3)],
)
