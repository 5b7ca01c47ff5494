"""Stable-Baselines3 and sb3-contrib: the actor of a saved model, out of its zip, without running anything of it.

The zip holds ``data`` (JSON, with pickles in base64 that are read as records), ``policy.pth`` (tensors) and versions. The forward
pass of a policy class is not in the file; those known here are Stable-Baselines3's own, and any other is refused by name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake import pickles
from puffer_edge.intake.activations import from_class
from puffer_edge.intake.archives import MAX_TEXT, Archive, parse_json, short
from puffer_edge.intake.draft import Draft, check_observations, clamp_layers
from puffer_edge.intake.gym_spaces import Box, Choices, space
from puffer_edge.intake.tensors import Tensors, read_torch
from puffer_edge.policy import AnyLayer, Layer, Normalizer, Recurrent

FAMILIES = {
    "stable_baselines3.common.policies": "actor-critic",
    "stable_baselines3.sac.policies": "sac",
    "stable_baselines3.td3.policies": "td3",
    "stable_baselines3.dqn.policies": "dqn",
    "sb3_contrib.common.recurrent.policies": "recurrent",
    "sb3_contrib.tqc.policies": "sac",
    "sb3_contrib.qrdqn.policies": "qrdqn",
}
KNOWN = "PPO, A2C, TRPO, SAC, TD3, DDPG, DQN, and of sb3-contrib RecurrentPPO, TQC and QRDQN"
EXTRACTORS = ("FlattenExtractor", "CombinedExtractor", "NatureCNN")
GSDE_CLIP = 2.0
"""Default ``clip_mean`` of SAC with gSDE: a Hardtanh on the mean, before the squash."""


def is_sb3(archive: Archive) -> bool:
    """Whether a zip is a model of Stable-Baselines3."""
    return "data" in archive.names and "policy.pth" in archive.names


def read(archive: Archive) -> Draft:
    """The actor of a saved model.

    Raises:
        InvalidInput: the file is damaged or incomplete.
        Unsupported: a policy class, features extractor, activation or space that is not known here.
    """
    return _Model(archive).draft()


class _Model:
    """One saved model, on its way to a draft."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.what = archive, archive.what
        data = parse_json(archive.read("data", MAX_TEXT), f"'data' in {self.what}")
        if not isinstance(data, dict):
            raise InvalidInput(f"'data' in {self.what} is not a JSON object")
        self.data = data
        self.policy_class = pickles.class_name(self._value("policy_class"))
        self.family = FAMILIES.get(self.policy_class.rpartition(".")[0], "")
        kwargs = self._value("policy_kwargs") or {}
        if not isinstance(kwargs, dict):
            raise InvalidInput(f"'policy_kwargs' in {self.what} is not a dictionary: {pickles.class_name(kwargs) or type(kwargs).__name__}")
        self.kwargs: Mapping[Any, Any] = kwargs
        self.algorithm = self._algorithm()
        self.tensors: Tensors = read_torch(archive.read("policy.pth"), f"policy.pth in {self.what}")

    def _value(self, key: str) -> Any:
        """A field of ``data``: plain JSON, or the records of the pickle that it holds in base64."""
        found = self.data.get(key)
        if not isinstance(found, dict) or ":serialized:" not in found:
            return found
        try:
            raw = base64.b64decode(found[":serialized:"], validate=True)
        except (TypeError, ValueError):
            raise InvalidInput(f"{key!r} in {self.what} is not base64") from None
        return pickles.read(raw, f"{key!r} in {self.what}")

    def _algorithm(self) -> str:
        """The algorithm's name: the file does not say it, its settings do."""
        if not self.family:
            name = self.policy_class or "a class of the training script"
            raise Unsupported(f"{self.what}: the policy class is {short(name)}, whose forward pass is not in the file. Known are those of {KNOWN}")
        if self.family == "actor-critic":
            return "PPO" if "clip_range" in self.data else "TRPO" if "cg_max_steps" in self.data else "A2C"
        if self.family == "td3":
            return "DDPG" if self.data.get("policy_delay") == 1 and self.data.get("target_noise_clip") == 0 else "TD3"
        if self.family == "sac":
            return "TQC" if "tqc" in self.policy_class else "SAC"
        return {"dqn": "DQN", "recurrent": "RecurrentPPO", "qrdqn": "QRDQN"}[self.family]

    def draft(self) -> Draft:
        seen, driven = (space(self._value(f"{k}_space"), f"{k} space") for k in ("observation", "action"))
        source = f"Stable-Baselines3 {self.algorithm}"
        box = self._observed(seen, source)
        build: dict[str, Callable[[], Sequence[AnyLayer]]] = {
            "actor-critic": self._actor_critic,
            "recurrent": self._recurrent,
            "sac": self._sac,
            "td3": lambda: self._dense("actor.mu", last="tanh"),
            "dqn": lambda: self._dense("q_net.q_net"),
            "qrdqn": lambda: self._quantiles(driven),
        }
        draft = Draft(
            source,
            tuple(build[self.family]()),
            normalizer=Normalizer(np.zeros(box.low.size), np.full(box.low.size, 255.0), 1.0) if box.image else None,
            names=_names(box),
            parts=tuple(key for key, _ in box.parts),
            observation_low=box.low,
            observation_high=box.high,
            origin=self._origin(),
        )
        draft = self._drive(draft, driven)
        if draft.n_observations != box.low.size:
            raise InvalidInput(f"{self.what}: the observation space has {box.low.size} numbers, the network takes {draft.n_observations}")
        return draft

    def _observed(self, seen: Box | Choices, source: str) -> Box:
        extractor = pickles.class_name(self.kwargs.get("features_extractor_class")).rpartition(".")[2]
        if self.kwargs.get("features_extractor_class") is not None and extractor not in EXTRACTORS:
            raise Unsupported(
                f"{source}: the features extractor {extractor or 'of the training script'} is code that the file does not hold; "
                "export the actor as ONNX and import that"
            )
        if isinstance(seen, Choices):
            if not seen.binary:
                raise Unsupported(f"{source}: the observation is a choice, which Stable-Baselines3 feeds in as one-hot: observe plain numbers (Box)")
            n = len(seen.counts)
            seen = Box((n,), np.zeros(n), np.ones(n))
        check_observations(seen.low.size, source, seen.shape)
        inner = [name for name in self.tensors if "features_extractor." in name]
        if inner or extractor == "NatureCNN":
            raise Unsupported(f"{source}: the actor reads its observation through a convolution ({short(', '.join(inner))}); use MlpPolicy")
        return replace(seen, image=False) if self.kwargs.get("normalize_images") is False else seen

    def _dense(self, prefix: str, last: str = "none", activation: str | None = None) -> list[Layer]:
        """The linear layers of a torch ``Sequential``, in order, the last one with its own activation."""
        found = {m.group(1) for name in self.tensors if (m := re.fullmatch(re.escape(prefix) + r"\.(\d{1,4})\.(?:weight|bias)", name))}
        if not found:
            raise InvalidInput(f"policy.pth in {self.what} holds no {prefix}: {short(', '.join(self.tensors))}")
        order = sorted(map(int, found))
        inner = activation or self._activation()
        if [2 * k for k in range(len(order))] != order:
            raise Unsupported(f"{prefix} in {self.what} has layers at {short(order)}: something beside linear layers and activations is in it")
        return [self._linear(f"{prefix}.{k}", inner if k != order[-1] else last) for k in order]

    def _linear(self, name: str, activation: str) -> Layer:
        weight = self.tensors[f"{name}.weight"]
        if weight.ndim != 2:
            raise Unsupported(f"{name} in {self.what} is no linear layer: its weight has shape {weight.shape}")
        bias = self.tensors[f"{name}.bias"] if f"{name}.bias" in self.tensors else np.zeros(len(weight))
        return Layer(weight, bias, activation)

    def _activation(self) -> str:
        """The hidden activation: as given, or the default of the family."""
        given = self.kwargs.get("activation_fn")
        if given is None:
            return "tanh" if self.family in ("actor-critic", "recurrent") else "relu"
        return from_class(pickles.class_name(given), f"activation_fn of {self.what}")

    def _actor_critic(self) -> list[Layer]:
        hidden: list[Layer] = []
        for part in ("mlp_extractor.shared_net", "mlp_extractor.policy_net"):
            if any(name.startswith(part + ".") for name in self.tensors):
                hidden += self._dense(part, last=self._activation())
        return [*hidden, self._linear("action_net", "none")]

    def _recurrent(self) -> list[AnyLayer]:
        cells: list[AnyLayer] = []
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        extra = [n for n in self.tensors if n.startswith("lstm_actor.") and (n.endswith("_reverse") or "weight_hr" in n)]
        if extra:
            raise Unsupported(f"{self.what}: an LSTM that runs backwards or projects its state ({extra[0]}) has no place on a device")
        while f"lstm_actor.weight_ih_l{len(cells)}" in self.tensors:
            parts = [self.tensors[f"lstm_actor.{name}_l{len(cells)}"] for name in names]
            cells.append(Recurrent("lstm", *parts))
        if not cells:
            raise InvalidInput(f"policy.pth in {self.what} holds no lstm_actor: {short(', '.join(self.tensors))}")
        return [*cells, *self._actor_critic()]

    def _sac(self) -> list[Layer]:
        hidden: list[Layer] = []
        if any(name.startswith("actor.latent_pi.") for name in self.tensors):
            hidden = self._dense("actor.latent_pi", last=self._activation())
        if "actor.mu.weight" in self.tensors:
            return [*hidden, self._linear("actor.mu", "none")]
        mean = self._linear("actor.mu.0", "none")
        bound = pickles.plain(self.kwargs.get("clip_mean", GSDE_CLIP), f"clip_mean in {self.what}")
        return [*hidden, mean, *clamp_layers(mean.n_out, -bound, bound)]

    def _quantiles(self, driven: Box | Choices) -> list[Layer]:
        """QR-DQN chooses by the mean of its quantiles, which is linear: it goes into the last layer."""
        *hidden, last = self._dense("quantile_net.quantile_net")
        n = driven.counts[0] if isinstance(driven, Choices) else 0
        if not n or last.n_out % n:
            raise InvalidInput(f"{self.what}: {last.n_out} outputs are no whole number of quantiles for {n} choices")
        return [*hidden, Layer(last.weight.reshape(-1, n, last.n_in).mean(0), last.bias.reshape(-1, n).mean(0), "none")]

    def _drive(self, draft: Draft, driven: Box | Choices) -> Draft:
        """The head: what the outputs become."""
        *hidden, last = draft.layers
        if not isinstance(last, Layer):
            raise InvalidInput(f"{self.what}: the last layer is not a linear one")
        if isinstance(driven, Choices):
            if driven.binary:  # a Bernoulli with one output z chooses 1 where z > 0: the larger of (0, z)
                weight, bias = np.zeros((2 * last.n_out, last.n_in)), np.zeros(2 * last.n_out)
                weight[1::2], bias[1::2] = last.weight, last.bias
                draft = replace(draft, layers=(*hidden, Layer(weight, bias, "none")))
            return replace(draft, head="discrete" if driven.single else "multi_discrete", choices=driven.counts)
        if not (np.isfinite(driven.low).all() and np.isfinite(driven.high).all() and (driven.low < driven.high).all()):
            raise InvalidInput(f"{self.what}: the action space must be bounded, it is {short(driven.low)} … {short(driven.high)}")
        if driven.low.size != draft.n_outputs:
            raise InvalidInput(f"{self.what}: the action space has {driven.low.size} numbers, the network gives {draft.n_outputs}")
        draft = replace(draft, action_low=driven.low, action_high=driven.high)
        if self.family in ("actor-critic", "recurrent") and not self.kwargs.get("squash_output"):
            return replace(draft, head="clip")
        draft = replace(draft, layers=(*hidden, Layer(last.weight, last.bias, "none")))
        return replace(draft, head="tanh", scale=(driven.high - driven.low) / 2, offset=(driven.high + driven.low) / 2)

    def _origin(self) -> dict[str, Any]:
        origin: dict[str, Any] = {"format": "stable-baselines3", "algorithm": self.algorithm, "policy_class": self.policy_class}
        if "_stable_baselines3_version" in self.archive.names:
            version = self.archive.read("_stable_baselines3_version", 64).decode("ascii", "replace").strip()
            origin["versions"] = {"stable-baselines3": version}
        for key, name in (("seed", "seed"), ("num_timesteps", "steps")):
            if type(self.data.get(key)) is int:
                origin[name] = self.data[key]
        if self.data.get("_last_obs") is not None:
            # Kept by Stable-Baselines3 only where a VecNormalize stood between: the observation before it was normalised.
            origin["vec_normalize"] = self.data.get("_last_original_obs") is not None
        return origin


def _names(box: Box) -> tuple[str, ...]:
    names = []
    for key, size in box.parts:
        word = re.sub(r"\W", "_", key, flags=re.ASCII)
        word = word if word.isidentifier() else f"o_{word}"
        names += [word if size == 1 else f"{word}_{k}" for k in range(size)]
    return tuple(names) if len(set(names)) == len(names) else ()
