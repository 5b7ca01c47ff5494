"""The float policy: its heads, its checks, its file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.policy import Head, Layer, Normalizer, Policy

safetensors = pytest.importorskip("safetensors.numpy")


def policy(kind: str = "clip", **changes: Any) -> Policy:
    """Two observations, one hidden neuron a sign, one action or three choices."""
    c = Contract(
        "task",
        (ObservationChannel("x", "m", -4, 4), ObservationChannel("v", "m/s", -4, 4)),
        (ActionChannel("u", "N", -2.0, 2.0, 0, 0),),
        kind,
        50.0,
        ((-2.0,), (0.0,), (2.0,)) if kind == "discrete" else (),
    )
    last = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]) if kind == "discrete" else np.array([[1.0, -1.0]])
    layers = (Layer(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.zeros(2), "relu"), Layer(last, np.zeros(len(last)), "none"))
    fields = {"layers": layers, "normalizer": Normalizer(np.zeros(2), np.ones(2)), "head": Head(kind, np.array([2.0]), np.array([0.5]))}
    return Policy(c, **(fields | {"origin": {"seed": 3}} | changes))


def test_clip_head_is_affine_then_clamped() -> None:
    assert policy("clip").act([[0.5, 9.0], [1.0, 0.0], [-3.0, 0.0]])[:, 0].tolist() == [1.5, 2.0, -2.0]


def test_tanh_head_is_squashed_then_affine() -> None:
    assert policy("tanh").act([0.3, 0.0])[0] == pytest.approx(0.5 + 2 * np.tanh(0.3))


def test_discrete_head_takes_the_first_of_equals() -> None:
    p = policy("discrete")
    assert p.choose([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]).tolist() == [0, 2, 0]
    assert p.act([[1.0, 0.0], [-1.0, 0.0]])[:, 0].tolist() == [-2.0, 2.0]
    with pytest.raises(InvalidInput, match="use act"):
        policy("clip").choose([0.0, 0.0])


def test_normaliser_whitens_and_clips() -> None:
    norm = Normalizer(np.array([1.0, 0.0]), np.array([0.5, 2.0]), clip=3.0)
    assert norm(np.array([[2.0, -1.0], [9.0, -99.0]])).tolist() == [[2.0, -0.5], [3.0, -3.0]]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"head": Head("tanh", np.ones(1), np.zeros(1))}, "the contract says 'clip'"),
        ({"layers": (Layer(np.ones((1, 2)), np.zeros(1), "relu"),)}, "must be a dense one"),
        ({"layers": (Layer(np.ones((1, 3)), np.zeros(1), "none"),)}, "layer 0 takes 3 values, 2 come from the observations"),
        ({"layers": (Layer(np.ones((2, 2)), np.zeros(2), "none"),)}, "gives 2 values, the head 'clip' of this contract takes 1"),
        ({"layers": (Layer(np.full((1, 2), np.inf), np.zeros(1), "none"),)}, "2 NaN or infinite"),
        ({"normalizer": Normalizer(np.zeros(2), np.array([1.0, 0.0]))}, "must be positive"),
        ({"normalizer": Normalizer(np.zeros(2), np.ones(2), 0.0)}, "must be positive"),
        ({"normalizer": Normalizer(np.zeros(3), np.ones(2))}, "normalizer.mean has shape"),
        ({"normalizer": Normalizer(np.array([np.nan, 0.0]), np.ones(2))}, "1 NaN"),
        ({"head": Head("clip", np.ones(2), np.zeros(1))}, "head.scale has shape"),
    ],
)
def test_a_wrong_policy_says_what_is_wrong(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        policy(**changes)


@pytest.mark.parametrize("head", ["discrete", "clip", "tanh"])
def test_save_and_load(tmp_path: Path, head: str) -> None:
    p = policy(head)
    p.save(tmp_path / "p.safetensors")
    again = Policy.load(tmp_path / "p.safetensors")
    x = np.random.default_rng(0).standard_normal((50, 2))
    assert again.contract == p.contract and again.origin == {"seed": 3} and (again.act(x) == p.act(x)).all()
    assert [layer.activation for layer in again.layers] == ["relu", "none"]


def test_no_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="puffer-edge train"):
        Policy.load(tmp_path / "absent")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    policy().save(path)
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(BundleError):
            Policy.load(path)


def rewritten(path: Path, **changes: Any) -> None:
    """The saved file with other metadata."""
    policy().save(path)
    tensors = safetensors.load_file(path)
    about = json.loads(read_metadata(path)) | changes
    path.write_bytes(safetensors.save(tensors, metadata={"puffer_edge": json.dumps(about)}))


def read_metadata(path: Path) -> str:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["puffer_edge"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 3}, "upgrade puffer-edge"),
        ({"format": None}, "does not say which format"),
        ({"layers": [{"layer": "dense", "activation": "relu"}] * 3}, "lacks a part"),
        ({"layers": None}, "lacks a part"),
        ({"clip": "wide"}, "lacks a part"),
        ({"clip": 10**400}, "lacks a part"),
        ({"origin": 7}, "lacks a part"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    rewritten(tmp_path / "p", **changes)
    with pytest.raises(BundleError, match=match):
        Policy.load(tmp_path / "p")


def test_a_file_of_format_1_still_loads(tmp_path: Path) -> None:
    rewritten(tmp_path / "p", format=1, activations=["relu", "none"])
    assert (Policy.load(tmp_path / "p").act(np.ones((3, 2))) == policy().act(np.ones((3, 2)))).all()


@pytest.mark.parametrize("contract", [{}, None, {"name": "x"}])
def test_a_file_with_a_wrong_contract_is_refused(tmp_path: Path, contract: Any) -> None:
    rewritten(tmp_path / "p", contract=contract)
    with pytest.raises((BundleError, InvalidInput)):
        Policy.load(tmp_path / "p")


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(safetensors.save({"a": np.zeros(3)}))
    with pytest.raises(BundleError, match="not a policy"):
        Policy.load(tmp_path / "p")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_metadata_nested_without_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_bytes(safetensors.save({"a": np.zeros(3)}, metadata={"puffer_edge": text}))
    with pytest.raises(BundleError, match="damaged"):
        Policy.load(tmp_path / "p")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_numbers_that_numpy_has_not_are_refused(tmp_path: Path, dtype: str) -> None:
    import ml_dtypes  # with it numpy does know them: the answer must not depend on that

    assert ml_dtypes.bfloat16 is not None
    size = 2 if dtype == "BF16" else 1
    tensor = {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * size]}
    head = json.dumps({"__metadata__": {"puffer_edge": "{}"}, "normalizer.mean": tensor}).encode()
    (tmp_path / "p").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4 * size))
    with pytest.raises(BundleError, match="damaged"):
        Policy.load(tmp_path / "p")


def test_origin_is_not_shared_between_policies() -> None:
    p = policy()
    bare = dataclasses.replace(p, origin={})
    assert p.origin == {"seed": 3} and bare.origin == {} and p.name == "task"
