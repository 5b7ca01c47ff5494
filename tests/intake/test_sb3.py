"""Stable-Baselines3 and sb3-contrib: a model gives the same actions before and after import, and what cannot be imported says why."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib as contrib
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake.adopt import adopt, read_draft
from puffer_edge.intake.draft import assemble
from puffer_edge.intake.sources import Sources
from puffer_edge.policy import Policy, Recurrent
from tests.intake.hostile import torch_file, unzipped, zipped

SMALL = {"net_arch": [16, 16]}
ROWS = 1200
ALGORITHMS: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "PPO": (sb3.PPO, "MlpPolicy", "Pendulum-v1", {"n_steps": 64, "batch_size": 32, "n_epochs": 2}),
    "A2C": (sb3.A2C, "MlpPolicy", "Pendulum-v1", {}),
    "SAC": (sb3.SAC, "MlpPolicy", "Pendulum-v1", {"learning_starts": 50}),
    "TD3": (sb3.TD3, "MlpPolicy", "Pendulum-v1", {"learning_starts": 50}),
    "DDPG": (sb3.DDPG, "MlpPolicy", "Pendulum-v1", {"learning_starts": 50}),
    "TQC": (contrib.TQC, "MlpPolicy", "Pendulum-v1", {"learning_starts": 50}),
    "DQN": (sb3.DQN, "MlpPolicy", "CartPole-v1", {"learning_starts": 50}),
    "QRDQN": (contrib.QRDQN, "MlpPolicy", "CartPole-v1", {"learning_starts": 50}),
}


class Still(gym.Env):  # type: ignore[misc]
    """Spaces of any kind, and no plant: a model is saved, not trained."""

    def __init__(self, observation: Any, action: Any) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


def box(*shape: int, low: float = -1.0, high: float = 1.0, dtype: Any = np.float32) -> Any:
    return gym.spaces.Box(low, high, shape, dtype)


def save(folder: Path, model: Any) -> Path:
    model.save(folder / "model.zip")
    return folder / "model.zip"


def still(folder: Path, observation: Any, action: Any, algorithm: Any = None, policy: str = "MlpPolicy", **settings: Any) -> tuple[Any, Path]:
    """An untrained model with larger weights than a new one has, so that its actions differ."""
    kwargs = {**SMALL, **settings.pop("policy_kwargs", {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about image shapes and the like
        model = (algorithm or sb3.PPO)(policy, Still(observation, action), policy_kwargs=kwargs, seed=1, device="cpu", **settings)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return model, save(folder, model)


def contract(n: int, head: str, actions: list[tuple[float, float]], levels: Any = (), bound: float = 20.0) -> Contract:
    channels = tuple(ActionChannel(f"a{j}", "1", low, high, low, low) for j, (low, high) in enumerate(actions))
    return Contract("task", tuple(ObservationChannel(f"o{i}", "1", -bound, bound) for i in range(n)), channels, head, 50.0, levels)


def policy_of(path: Path, c: Contract, **more: Any) -> Policy:
    draft = read_draft(Sources(path, **more), path.parent)
    draft.check_size()
    return assemble(draft, c)[0]


def uniform(n: int, bound: float = 3.0, rows: int = ROWS) -> Any:
    return np.random.default_rng(3).uniform(-bound, bound, (rows, n)).astype(np.float32)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_trained_model_gives_the_same_actions(name: str, tmp_path: Path) -> None:
    algorithm, policy, task, settings = ALGORITHMS[name]
    env = VecNormalize(DummyVecEnv([lambda: gym.make(task)]), clip_obs=2.0)
    model = algorithm(policy, env, policy_kwargs=dict(SMALL), seed=0, device="cpu", **settings)
    model.learn(200)
    path = save(tmp_path, model)
    env.save(tmp_path / "vecnormalize.pkl")
    own = "pendulum" if task == "Pendulum-v1" else "cartpole"
    imported, _ = adopt(Sources(path, str(tmp_path / "vecnormalize.pkl"), own), tmp_path / "run")
    assert imported.origin["algorithm"] == name and imported.origin["environment"] == own
    low, high = (np.array([getattr(c, k) for c in imported.contract.observations]) for k in ("low", "high"))
    seen = np.random.default_rng(1).uniform(low, high, (ROWS, len(low))).astype(np.float32)
    wanted, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    loaded = Policy.load(tmp_path / "run" / "policy.safetensors")
    if own == "cartpole":
        assert (loaded.choose(seen) == wanted).mean() > 0.999  # a tie of float32 may fall the other way in float64
        assert len(set(wanted.tolist())) == 2
    else:
        assert np.abs(loaded.act(seen) - wanted).max() <= 1e-5 * 4.0
        assert loaded.head.kind == ("clip" if name in ("PPO", "A2C") else "tanh")


@pytest.mark.parametrize("layers", [1, 2])
def test_a_recurrent_model_gives_the_same_actions_step_by_step(layers: int, tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    kwargs = {"net_arch": [8], "lstm_hidden_size": 12, "n_lstm_layers": layers}
    model = contrib.RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=kwargs, n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    path = save(tmp_path, model)
    env.save(tmp_path / "v.pkl")
    imported = policy_of(path, contract(3, "clip", [(-2.0, 2.0)], bound=8.0), normalizer=str(tmp_path / "v.pkl"))
    assert sum(isinstance(layer, Recurrent) for layer in imported.layers) == layers and imported.memory == 24 * layers
    state, memory, worst = None, np.zeros(imported.memory), 0.0
    for k, seen in enumerate(uniform(3, 1.0)):
        first = k % 100 == 0
        memory = memory * (not first)
        wanted, state = model.predict(env.normalize_obs(seen), state=state, episode_start=np.array([first]), deterministic=True)
        got, memory = imported.act_step(seen, memory)
        worst = max(worst, float(np.abs(got - wanted).max()))
    assert worst <= 1e-5 * 4.0


@pytest.mark.parametrize(("algorithm", "squash"), [("PPO", True), ("PPO", False), ("SAC", True)])
def test_gsde_squashes_where_it_says_so(algorithm: str, squash: bool, tmp_path: Path) -> None:
    more = {"squash_output": squash} if algorithm == "PPO" else {}
    model, path = still(tmp_path, box(4), box(2, low=-2.0, high=3.0), getattr(sb3, algorithm), use_sde=True, policy_kwargs=more)
    imported = policy_of(path, contract(4, "tanh" if squash else "clip", [(-2.0, 3.0)] * 2))
    wanted, _ = model.predict(uniform(4), deterministic=True)
    assert np.abs(imported.act(uniform(4)) - wanted).max() <= 1e-5 * 5.0
    assert imported.head.kind == ("tanh" if squash else "clip")


@pytest.mark.parametrize("activation", ["Tanh", "ReLU", "ELU", "SiLU", "LeakyReLU", "GELU", "Sigmoid"])
def test_activations_by_name(activation: str, tmp_path: Path) -> None:
    model, path = still(tmp_path, box(5), box(1), policy_kwargs={"activation_fn": getattr(torch.nn, activation)})
    imported = policy_of(path, contract(5, "clip", [(-1.0, 1.0)]))
    wanted, _ = model.predict(uniform(5), deterministic=True)
    assert np.abs(imported.act(uniform(5)) - wanted).max() <= 1e-5 * 2.0


def test_layers_that_older_versions_shared(tmp_path: Path) -> None:
    model, path = still(tmp_path, box(4), box(1))
    members = unzipped(path.read_bytes())
    state = {k.replace("policy_net.0", "shared_net.0").replace("policy_net.2", "policy_net.0"): v for k, v in model.policy.state_dict().items()}
    path.write_bytes(zipped({**members, "policy.pth": torch_file(state)}))
    wanted, _ = model.predict(uniform(4), deterministic=True)
    assert np.abs(policy_of(path, contract(4, "clip", [(-1.0, 1.0)])).act(uniform(4)) - wanted).max() <= 1e-5 * 2.0


def test_torch_is_not_needed(tmp_path: Path) -> None:
    path, normalizer = pendulum_model(tmp_path)
    command = f"import sys; from puffer_edge.cli import main; main(['import', {str(path)!r}, '--normalizer', {normalizer!r}, '--env', 'pendulum', "
    command += f"'--out', {str(tmp_path / 'run')!r}]); assert not {{'torch', 'onnx', 'stable_baselines3', 'gymnasium'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)
    with_none = command.replace(repr(normalizer), "'none'")
    subprocess.run([sys.executable, "-c", with_none], check=True)
    assert Policy.load(tmp_path / "run" / "policy.safetensors").normalizer.std.tolist() == [1.0] * 3


def test_several_choices(tmp_path: Path) -> None:
    model, path = still(tmp_path, box(4), gym.spaces.MultiDiscrete([3, 2, 4]))
    levels = ((0.0, 1.0, 2.0), (0.0, 1.0), (0.0, 1.0, 2.0, 3.0))
    imported = policy_of(path, contract(4, "multi_discrete", [(0.0, 3.0)] * 3, levels))
    wanted, _ = model.predict(uniform(4), deterministic=True)
    assert (imported.act(uniform(4)) == wanted).all() and len(np.unique(wanted)) > 2


def test_switches(tmp_path: Path) -> None:
    model, path = still(tmp_path, box(4), gym.spaces.MultiBinary(3))
    imported = policy_of(path, contract(4, "multi_discrete", [(0.0, 1.0)] * 3, ((0.0, 1.0),) * 3))
    wanted, _ = model.predict(uniform(4), deterministic=True)
    assert (imported.act(uniform(4)) == wanted).all() and set(np.unique(wanted)) == {0, 1}


def test_a_dictionary_is_flattened_in_the_models_order(tmp_path: Path) -> None:
    parts = {"z_speed": box(2), "a_place": box(1), "middle": box(2, 2)}
    model, path = still(tmp_path, gym.spaces.Dict(parts), box(1), policy="MultiInputPolicy")
    draft = read_draft(Sources(path), tmp_path)
    assert draft.names == ("a_place", "middle_0", "middle_1", "middle_2", "middle_3", "z_speed_0", "z_speed_1")
    imported = assemble(draft, contract(7, "clip", [(-1.0, 1.0)]))[0]
    seen = uniform(7)
    wanted, _ = model.predict({"a_place": seen[:, :1], "middle": seen[:, 1:5].reshape(-1, 2, 2), "z_speed": seen[:, 5:]}, deterministic=True)
    assert np.abs(imported.act(seen) - wanted).max() <= 1e-5 * 2.0


def test_a_normalised_dictionary(tmp_path: Path) -> None:
    spaces = gym.spaces.Dict({"b": box(2), "a": box(1)})
    env = VecNormalize(DummyVecEnv([lambda: Still(spaces, box(1))]))
    model = sb3.PPO("MultiInputPolicy", env, policy_kwargs=dict(SMALL), n_steps=32, batch_size=16, n_epochs=1, device="cpu")
    model.learn(64)
    path = save(tmp_path, model)
    env.save(tmp_path / "v.pkl")
    imported = policy_of(path, contract(3, "clip", [(-1.0, 1.0)]), normalizer=str(tmp_path / "v.pkl"))
    seen = uniform(3, 1.0)
    wanted, _ = model.predict(env.normalize_obs({"a": seen[:, :1], "b": seen[:, 1:]}), deterministic=True)
    assert np.abs(imported.act(seen) - wanted).max() <= 1e-5 * 2.0
    other = VecNormalize(DummyVecEnv([lambda: Still(spaces, box(1))]), norm_obs_keys=["a"])
    other.save(tmp_path / "part.pkl")
    with pytest.raises(Unsupported, match="not b: all parts, or none"):
        policy_of(path, contract(3, "clip", [(-1.0, 1.0)]), normalizer=str(tmp_path / "part.pkl"))


def test_a_tiny_image_is_divided_by_255(tmp_path: Path) -> None:
    model, path = still(tmp_path, box(1, 4, 4, low=0, high=255, dtype=np.uint8), box(1))
    imported = policy_of(path, contract(16, "clip", [(-1.0, 1.0)], bound=255.0))
    seen = np.random.default_rng(0).integers(0, 256, (ROWS, 16)).astype(np.uint8)
    wanted, _ = model.predict(seen.reshape(-1, 1, 4, 4), deterministic=True)
    assert np.abs(imported.act(seen) - wanted).max() <= 1e-5 * 2.0


def pendulum_model(folder: Path, **normalize: Any) -> tuple[Path, str]:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), **normalize)
    model = sb3.PPO("MlpPolicy", env, policy_kwargs=dict(SMALL), n_steps=32, batch_size=32, n_epochs=1, device="cpu")
    model.learn(32)
    env.save(folder / "v.pkl")
    return save(folder, model), str(folder / "v.pkl")


def test_a_missing_normaliser_is_asked_for(tmp_path: Path) -> None:
    path, normalizer = pendulum_model(tmp_path)
    with pytest.raises(InvalidInput, match=r"trained behind a VecNormalize.*--normalizer FILE.*--normalizer none"):
        adopt(Sources(path, environment="pendulum"), tmp_path / "run")
    bare, _ = adopt(Sources(path, "none", "pendulum"), tmp_path / "bare")
    with_it, _ = adopt(Sources(path, normalizer, "pendulum"), tmp_path / "run")
    assert bare.normalizer.std.tolist() == [1.0] * 3 and with_it.normalizer.std.tolist() != [1.0] * 3
    assert with_it.origin["normalizer"]["file"] == "v.pkl"


def test_a_normaliser_that_leaves_observations_alone(tmp_path: Path) -> None:
    path, normalizer = pendulum_model(tmp_path, norm_obs=False)
    imported, notes = adopt(Sources(path, normalizer, "pendulum"), tmp_path / "run")
    assert imported.normalizer.std.tolist() == [1.0] * 3 and "norm_obs=False" in notes[0]


def test_a_normaliser_of_another_model(tmp_path: Path) -> None:
    _, path = still(tmp_path, box(2), box(1))
    other = tmp_path / "pendulum"
    other.mkdir()
    _, normalizer = pendulum_model(other)
    with pytest.raises(InvalidInput, match="normalises 3 observations, the model takes 2"):
        policy_of(path, contract(2, "clip", [(-1.0, 1.0)]), normalizer=normalizer)


class Wider(BaseFeaturesExtractor):  # type: ignore[misc]
    """A features extractor of somebody's own."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 4)

    def forward(self, x: Any) -> Any:
        return torch.cat([x, x * x], 1)


class OwnPolicy(sb3.ppo.MlpPolicy):  # type: ignore[misc, name-defined]
    """A policy of somebody's own."""


@pytest.mark.parametrize(
    ("observation", "action", "settings", "match"),
    [
        (box(2), box(1), {"policy_kwargs": {"activation_fn": torch.nn.Mish}}, "Mish: the nearest is SiLU"),
        (box(2), box(1), {"policy_kwargs": {"features_extractor_class": Wider}}, "features extractor Wider is code"),
        (box(2), box(1), {"policy": OwnPolicy}, "OwnPolicy, whose forward pass is not in the file"),
        (box(513), box(1), {}, "observes 513 numbers, a contract has at most 512"),
        (box(3, 84, 84, low=0, high=255, dtype=np.uint8), box(1), {"policy": "CnnPolicy"}, r"observes 21,168 numbers \(3 × 84 × 84\)"),
        (box(2), box(65), {}, "drives 65 actions, a contract has at most 64"),
        (box(2), gym.spaces.Discrete(257), {}, "chooses among 257"),
        (gym.spaces.Discrete(4), box(1), {}, "one-hot"),
        (
            gym.spaces.Dict({"a": gym.spaces.Discrete(3), "b": box(1)}),
            box(1),
            {"policy": "MultiInputPolicy"},
            "part a of the observation space is not a Box",
        ),
    ],
)
def test_what_cannot_be_imported_says_why(observation: Any, action: Any, settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    _, path = still(tmp_path, observation, action, **settings)
    with pytest.raises(Unsupported, match=match):
        read_draft(Sources(path), tmp_path).check_size()


def test_the_default_extractor_by_name_is_fine(tmp_path: Path) -> None:
    _, path = still(tmp_path, box(2), box(1), policy_kwargs={"features_extractor_class": FlattenExtractor})
    assert read_draft(Sources(path), tmp_path).n_observations == 2


def test_contracts_that_contradict_the_model(tmp_path: Path) -> None:
    _, path = still(tmp_path, box(2), box(1))
    with pytest.raises(InvalidInput, match=r"observes 2 numbers, the contract task 3 \(o0, o1, o2\)"):
        policy_of(path, contract(3, "clip", [(-1.0, 1.0)]))
    with pytest.raises(InvalidInput, match="head is 'clip', that of the contract task is 'discrete'"):
        policy_of(path, contract(2, "discrete", [(-1.0, 1.0)], ((-1.0,), (1.0,))))
    with pytest.raises(InvalidInput, match="gives 1 outputs, the contract task"):
        policy_of(path, contract(2, "clip", [(-1.0, 1.0)] * 2))
    with pytest.raises(InvalidInput, match=r"may reach -2 … 2 by the contract, but .* clipped to -1 … 1"):
        policy_of(path, contract(2, "clip", [(-2.0, 2.0)]))
    narrow, notes = assemble(read_draft(Sources(path, "none"), tmp_path), contract(2, "clip", [(-0.5, 1.0)]))
    assert notes == ("a0: the contract's range -0.5 … 1 cuts the model's -1 … 1",) and narrow.act(uniform(2)).min() == -0.5
