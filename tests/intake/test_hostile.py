"""Hostile files: nothing in them runs, nothing grows without bound, and only errors of this package come out."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puffer_edge.errors import InvalidInput, PufferEdgeError, Unsupported
from puffer_edge.intake import contract_toml, pickles
from puffer_edge.intake.adopt import adopt, read_draft
from puffer_edge.intake.archives import Archive
from puffer_edge.intake.normalizers import read_normalizer
from puffer_edge.intake.observations import read_observations
from puffer_edge.intake.sources import Sources
from puffer_edge.intake.tensors import read_tensors
from tests.intake.hostile import Bomb, cut, flip, inside, serialized, spill, torch_file, with_field, zipped

TENSORS = {"actor_mean.0.weight": torch.randn(4, 3), "actor_mean.0.bias": torch.randn(4)} | {
    "actor_mean.2.weight": torch.randn(1, 4),
    "actor_mean.2.bias": torch.randn(1),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good file of each format."""
    import gymnasium as gym
    import onnx
    import safetensors.torch
    from onnx import TensorProto, helper, numpy_helper
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    folder = tmp_path_factory.mktemp("honest")
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    PPO("MlpPolicy", env, policy_kwargs={"net_arch": [4], "activation_fn": torch.nn.ReLU}, device="cpu").save(folder / "m.zip")
    env.save(folder / "v.pkl")
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), helper.make_node("Relu", ["y"], ["z"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("x", 3), ("z", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return {
        "zip": (folder / "m.zip").read_bytes(),
        "pkl": (folder / "v.pkl").read_bytes(),
        "pth": torch_file(TENSORS),
        "safetensors": safetensors.torch.save(TENSORS),
        "onnx": onnx.helper.make_model(graph).SerializeToString(),
        "npz": zipped({"mean.npy": npy(np.zeros(3)), "var.npy": npy(np.ones(3))}),
        "toml": contract_toml.template(draft_of(folder / "m.zip")).replace('"?"', '"1"').replace('rate_hz = "1"', "rate_hz = 50").encode(),
    }


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def draft_of(path: Path) -> Any:
    return read_draft(Sources(path, "none"), path.parent)


def read(kind: str, path: Path) -> None:
    """Read a file as its kind is read by import."""
    if kind in ("pkl", "npz"):
        read_normalizer(path)
    elif kind == "toml":
        contract_toml.read_contract(path)
    else:
        draft_of(path)


MUTATIONS = {
    "zip": [flip, cut, spill, inside("data", flip), inside("policy.pth", flip), inside("policy.pth", inside("data.pkl", flip))],
    "pkl": [flip, cut, spill],
    "pth": [flip, inside("data.pkl", flip), inside("data.pkl", cut), inside("data.pkl", spill)],
    "safetensors": [flip, cut, spill],
    "onnx": [flip, cut, spill],
    "npz": [flip, inside("mean.npy", flip), inside("mean.npy", cut)],
    "toml": [flip, cut, spill],
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_damaged_file_gives_a_clear_error_or_a_policy(kind: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(sum(map(ord, kind)))
    path, refused = tmp_path / f"x.{kind}", 0
    for mutate in MUTATIONS[kind]:
        for _ in range(120):
            path.write_bytes(mutate(rng, honest[kind]))
            try:
                read(kind, path)
            except PufferEdgeError as error:
                refused += 1
                assert 10 < len(str(error)) < 2000
    assert refused > 100
    path.write_bytes(honest[kind])
    if kind != "toml":
        read(kind, path)


def test_nothing_in_a_pickle_runs(honest: dict[str, bytes], tmp_path: Path) -> None:
    trace = tmp_path / "boom"
    bomb = Bomb(trace)
    files = {
        f"{key}.zip": with_field(honest["zip"], key, serialized(bomb))
        for key in ("policy_class", "policy_kwargs", "observation_space", "action_space")
    }
    for key in ("policy_kwargs", "lr_schedule"):
        files[f"in_{key}.zip"] = with_field(honest["zip"], key, serialized({"activation_fn": bomb}))
    files["bomb.pth"] = torch_file({"a": bomb})
    files["module.pth"] = torch_file(torch.nn.Linear(2, 2))
    files["bare.pth"] = pickle.dumps(bomb)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        if name != "in_lr_schedule.zip":  # a field that is not read
            with pytest.raises(PufferEdgeError):
                draft_of(tmp_path / name)
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(bomb))
    with pytest.raises(InvalidInput, match="not a VecNormalize"):
        read_normalizer(tmp_path / "v.pkl")
    (tmp_path / "o.npy").write_bytes(npy(np.array([bomb], object)))
    with pytest.raises(InvalidInput, match="array of plain numbers"):
        read_observations(tmp_path / "o.npy", 1)
    assert not trace.exists()
    pickle.loads(pickle.dumps(bomb))
    assert trace.exists()  # the bomb was live


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04r\xff\xff\xff\x7f.",  # memo of 2 billion
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 8 EiB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # frame of 8 EiB
        b"\x80\x04N" + b"\x85" * 100_000 + b"}N\x86\x94s.",  # nested tuple as a key
        b"\x80\x04]q\x00" + b"h\x00a" * 50_000 + b".",  # a list in itself
        b"\x80\x04(" + b"0" * 10 + b".",
        b"\x80\x04\x82\x01.",  # extension registry
        b"\x80\x05\x97.",  # out-of-band buffer
        b"cos\nsystem\n(S'true'\ntR",
        b"}" * (pickles.MAX_OPCODES + 1) + b".",
        b"\x80\x04N" + b"\x85" * 900_000 + b".",
        b"I" + b"9" * 100_000 + b"\n.",
    ],
    ids=range(12),
)
def test_pickles_that_want_memory_or_depth(pickled: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.pkl").write_bytes(pickled if pickled[:1] == b"\x80" else b"\x80\x04" + pickled)
    before = peak_mib()
    with pytest.raises(InvalidInput):
        read_normalizer(tmp_path / "v.pkl")
    assert peak_mib() - before < 512


def peak_mib() -> float:
    """The most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def test_an_array_that_lies_about_its_size(tmp_path: Path) -> None:
    header = npy(np.zeros(3)).replace(b"'shape': (3,), }" + b" " * 15, b"'shape': (3000000000000,), }   ")
    assert b"3000000000000" in header
    (tmp_path / "o.npy").write_bytes(header)
    with pytest.raises(InvalidInput, match="24 bytes"):
        read_observations(tmp_path / "o.npy", 1)
    lie = pickle.dumps(np.zeros(3)).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")
    with pytest.raises(InvalidInput, match="not an array of numbers"):
        pickles.array(pickles.read(lie, "x"), "x")


def test_bombs_of_zips(honest: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(zipped({"data": b" " * (20 << 20), "policy.pth": b""}))
    assert path.stat().st_size < 100_000
    with pytest.raises(InvalidInput, match=r"'data' in .* unpacks to 20.0 MiB, at most 16.0 MiB"):
        draft_of(path)
    honest_size = bytearray(path.read_bytes())  # now the directory lies: it says 16 bytes
    at = honest_size.rindex(b"PK\x01\x02", 0, honest_size.index(b"PK\x01\x02") + 4)
    honest_size[at + 24 : at + 28] = struct.pack("<I", 16)
    path.write_bytes(bytes(honest_size))
    with pytest.raises(InvalidInput, match=r"cannot be unpacked|not JSON"):
        draft_of(path)
    path.write_bytes(zipped({f"m{k}": b"" for k in range(10_001)}))
    with pytest.raises(InvalidInput, match="10,001 members"):
        draft_of(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_names_that_lead_out_of_the_archive(name: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="leads out of the archive"):
        Archive(zipped({name: b"x", "data": b"{}"}), "m.zip")


def test_a_member_twice() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("data", b"[]")
    with pytest.raises(InvalidInput, match="twice"):
        Archive(stream.getvalue(), "m.zip")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate((256 << 20) + 1)  # sparse
    with pytest.raises(InvalidInput, match=r"larger than 256.0 MiB"):
        draft_of(tmp_path / "large.onnx")


def test_tensors_that_claim_more_than_their_storage() -> None:
    whole = torch.zeros(4).expand(1_000_000, 4)
    with pytest.raises(InvalidInput, match=r"claims \(1000000, 4\) numbers, its storage has 4"):
        read_tensors(torch_file({"a": whole}), "x.pth")["a"]


def test_forms_of_torch_that_are_code(tmp_path: Path) -> None:
    scripted = io.BytesIO()
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)), scripted)
    with pytest.raises(Unsupported, match="TorchScript"):
        read_tensors(scripted.getvalue(), "x.pt")
    old = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(Unsupported, match=r"before 1\.6"):
        read_tensors(old.getvalue(), "x.pt")
    with pytest.raises(Unsupported, match=r"torch\.nn\.modules\.linear\.Linear, whose forward pass is code"):
        read_tensors(torch_file(torch.nn.Linear(2, 1)), "x.pt")


def test_what_is_no_policy_at_all(tmp_path: Path) -> None:
    for data, match in (
        (b"", "none of the formats"),
        (b"hello, world", "none of the formats"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "RLtools documents no format"),
        (zipped({"readme": b""}), "no data.pkl"),
        (b"PK\x03\x04" + bytes(40), "not a zip"),
    ):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(PufferEdgeError, match=match):
            draft_of(tmp_path / "x")
    with pytest.raises(InvalidInput, match="there is no file"):
        draft_of(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="there is no file"):
        adopt(Sources(tmp_path, environment="pendulum"), tmp_path / "run")
