"""Settings are checked where they are made, and an unknown key is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from puffer_edge.errors import InvalidInput
from puffer_edge.train.settings import PPOSettings
from puffer_edge.train.settings_file import preset, preset_names


def test_round_trip_through_json() -> None:
    for settings in (PPOSettings(), *map(preset, preset_names()), PPOSettings(hidden=(8,), target_kl=0.02)):
        assert PPOSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 1.0}, "no setting lr: it has engine, threads, vector"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"rows": 2.5}, "rows must be a whole number"),
        ({"epochs": True}, "epochs"),
        ({"learning_rate": float("nan")}, "learning_rate must lie in 0 … 1, not nan"),
        ({"discount": 1.1}, "discount"),
        ({"clip": "0.2"}, "clip"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (64, 0)}, "hidden"),
        ({"hidden": 64}, "hidden"),
        ({"activation": "gelu"}, "activation must be one of relu, tanh, not 'gelu'"),
        ({"target_kl": 0.0}, "target_kl"),
        ({"target_kl": "small"}, "target_kl"),
        ({"schedule": "linaer"}, "schedule must be one of constant, linear, cosine, not 'linaer'"),
        ({"dual_clip": 1.0}, "dual_clip must be a number above 1 or None"),
        ({"entropy_final": -0.1}, "entropy_final must be a number of at least 0"),
        ({"minibatch": 4, "accumulate": 5}, "4 samples cannot be added up from 5 parts"),
        ({"amp": 1}, "amp must be true or false"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1 or None"),
        ({"checkpoints": 0}, "checkpoints must be"),
        ({"rows": 1, "horizon": 1}, "at least 2 samples"),
        ({"rows": 10**12}, "1,000,000,000,000 rows × 64 steps has more than 67,108,864 samples"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        PPOSettings.from_dict(values)


def test_schedules_end_where_they_say() -> None:
    s = PPOSettings(steps=100, learning_rate=0.1, entropy_weight=0.02, entropy_final=0.0)
    assert [s.learning_rate_at(n) for n in (0, 50, 100, 130)] == pytest.approx([0.1, 0.05, 0, 0])
    assert [s.entropy_weight_at(n) for n in (0, 50, 100, 130)] == pytest.approx([0.02, 0.01, 0, 0])
    cosine = replace(s, schedule="cosine", entropy_final=None)
    assert [cosine.learning_rate_at(n) for n in (0, 50, 100)] == pytest.approx([0.1, 0.05, 0])
    assert cosine.entropy_weight_at(70) == 0.02
    assert replace(s, schedule="constant").learning_rate_at(99) == 0.1
