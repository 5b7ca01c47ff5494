"""Files for verifiers: the network is the policy, and a property read back means what its words say."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puffer_edge.contract import Contract
from puffer_edge.errors import Unsupported
from puffer_edge.export import vnnlib
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats
from tests import samples
from tests.export import nets

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ROWS = 2000


def small(head: str, activation: str = "relu") -> Policy:
    """Four observations and two actions, at a normaliser that clips inside the contract's range."""
    levels = {"discrete": ((1000.0, 2000.0), (2000.0, 1250.0), (1500.0, 1500.0)), "multi_discrete": ((1000.0, 2000.0), (1100.0, 1500.0, 1900.0))}
    wide = samples.many_channels(4, 2)
    c = Contract("small", wide.observations, wide.actions, head, 100.0, levels=levels.get(head, ()))
    made = samples.policy(c, (12, 8), activation, seed=13)
    norm = made.normalizer
    return Policy(c, made.layers, type(norm)(norm.mean, norm.std, 1.5), made.head)


def parsed(text: str) -> list[Any]:
    """The statements of a file as nested lists: SMT-LIB's brackets, without its comments."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1, "brackets do not match"
    return stack[0]


def value(word: str, x: Floats, y: Floats) -> Any:
    """A variable, one number a row, or a number."""
    return {"X": x, "Y": y}[word[0]][:, int(word[2:])] if word[0] in "XY" else float(word)


def holds(term: list[Any], x: Floats, y: Floats, slack: float = 0.0) -> Bools:
    """(rows,) whether a term holds, every comparison to within ``slack``."""
    operator, *rest = term
    if operator in ("and", "or"):
        parts = np.stack([holds(part, x, y, slack) for part in rest])
        return np.asarray(parts.all(0) if operator == "and" else parts.any(0))
    left, right = (value(word, x, y) for word in rest)
    return np.asarray({"<=": left <= right + slack, ">=": left >= right - slack}[operator])


def meaning(text: str, x: Floats, y: Floats, slack: float = 0.0) -> tuple[Bools, Bools]:
    """(rows,) whether observations lie in the file's box, and whether outputs lie in its unsafe set."""
    statements = parsed(text)
    assert [s for s in statements if s[0] == "declare-const"] == [
        ["declare-const", f"{letter}_{k}", "Real"] for letter, width in (("X", x.shape[1]), ("Y", y.shape[1])) for k in range(width)
    ]
    terms = [s[1] for s in statements if s[0] == "assert"]
    inputs = [t for t in terms if str(t[1]).startswith("X")]
    others = [t for t in terms if not str(t[1]).startswith("X")]
    assert len(inputs) == 2 * x.shape[1] and others and len(inputs) + len(others) + x.shape[1] + y.shape[1] == len(statements)
    return holds(["and", *inputs], x, y, slack), holds(["and", *others], x, y, slack)


def outputs(policy: Policy, x: Floats) -> Floats:
    """(rows, k) of the network in ONNX Runtime, which takes one row."""
    session = onnxruntime.InferenceSession(vnnlib.network(policy), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["outputs"], {"observation": row[None]})[0] for row in x.astype(np.float32)])


def before_the_clamp(policy: Policy, x: Floats) -> Floats:
    """(rows, k) what the network's outputs are defined as, in float64."""
    y = policy.outputs(x)
    if policy.head.kind in ("discrete", "multi_discrete"):
        return y
    return policy.head.offset + policy.head.scale * (np.tanh(y) if policy.head.kind == "tanh" else y)


def inside_the_contract(c: Contract) -> Floats:
    low, high = c.physical_observation(c.observation_low), c.physical_observation(c.observation_high)
    x = np.random.default_rng(3).uniform(low, high, (ROWS, c.n_observations))
    x[0], x[1] = low, high
    return x


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("head", ["clip", "tanh", "discrete", "multi_discrete"])
def test_the_network_is_the_policy_on_the_whole_contract(head: str, activation: str) -> None:
    """Beyond the box the normaliser clips: the network's value is that of the box's nearest point."""
    policy = small(head, activation)
    x, (low, high) = inside_the_contract(policy.contract), vnnlib.box(policy)
    nearest = np.clip(x, low, high)
    assert 0.2 < (nearest != x).any(1).mean() < 0.95
    wanted = before_the_clamp(policy, x)
    assert np.abs(outputs(policy, nearest) - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("head", ["clip", "tanh", "discrete", "multi_discrete"])
def test_the_network_holds_what_verifiers_read(head: str) -> None:
    proto = onnx.load_from_string(vnnlib.network(small(head)))
    onnx.checker.check_model(proto, full_check=True)
    assert {n.op_type for n in proto.graph.node} == {"Gemm", "Relu"} | ({"Tanh"} if head == "tanh" else set())
    (given,), (made,) = proto.graph.input, proto.graph.output
    sizes = [[d.dim_value for d in tensor.type.tensor_type.shape.dim] for tensor in (given, made)]
    assert sizes == [[1, 4], [1, {"clip": 2, "tanh": 2, "discrete": 3, "multi_discrete": 5}[head]]]
    assert proto.opset_import[0].version == vnnlib.OPSET


def test_an_action_is_inside_where_the_file_says_so() -> None:
    policy = small("clip")
    x = np.clip(inside_the_contract(policy.contract), *vnnlib.box(policy))
    y = outputs(policy, x)
    for j, (ch, item) in enumerate(zip(policy.contract.actions, vnnlib.properties(policy))):
        inside_box, unsafe = meaning(item.text(), x, y)
        assert inside_box.all() and item.name == f"servo{j}_inside"
        slack = vnnlib.MARGIN * (ch.high - ch.low)
        assert (unsafe == ((y[:, j] >= ch.high + slack) | (y[:, j] <= ch.low - slack))).all()
        assert 0.01 < unsafe.mean() < 0.99
        assert (policy.act(x)[unsafe, j] == np.where(y[unsafe, j] > ch.high, ch.high, ch.low)).all()  # there the clamp acts
    below = vnnlib.box(policy)[0][None] - 1e-3
    assert not meaning(item.text(), below, y[:1])[0].any()


def test_a_squashed_action_is_never_outside() -> None:
    policy = small("tanh")
    x = np.clip(inside_the_contract(policy.contract), *vnnlib.box(policy))
    assert not any(meaning(item.text(), x, outputs(policy, x))[1].any() for item in vnnlib.properties(policy))


@pytest.mark.parametrize("head", ["discrete", "multi_discrete"])
def test_a_choice_is_taken_where_the_file_says_so(head: str) -> None:
    policy = small(head)
    x = np.clip(inside_the_contract(policy.contract), *vnnlib.box(policy))
    y, taken = outputs(policy, x), policy.choose(x).reshape(ROWS, -1)
    assert min((taken[:, j] == k).mean() for j in range(taken.shape[1]) for k in range(taken[:, j].max() + 1)) > 0.05
    found = {item.name: meaning(item.text(), x, y)[1] for item in vnnlib.properties(policy)}
    sizes = [3] if head == "discrete" else [2, 3]
    names = [["choice_{}_never"], ["servo0_choice_{}_never", "servo1_choice_{}_never"]][len(sizes) - 1]
    assert list(found) == [name.format(k) for name, size in zip(names, sizes) for k in range(size)]
    for j, (name, size) in enumerate(zip(names, sizes)):
        different = [(found[name.format(k)] != (taken[:, j] == k)).mean() for k in range(size)]
        assert max(different) <= 1e-3  # two logits within float32 of each other


def marabou(folder: Path, policy: Policy, asked: vnnlib.Property) -> tuple[str, Floats]:
    """The answer of a real verifier, and its counterexample, (1, n), or (0, n) where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which parsers it lacks
        engine = pytest.importorskip("maraboupy.Marabou")
    (folder / vnnlib.NETWORK).write_bytes(vnnlib.network(policy))
    (folder / "asked.vnnlib").write_text(asked.text())
    read = engine.read_onnx(str(folder / vnnlib.NETWORK))
    options = engine.createOptions(verbosity=0, timeoutInSeconds=60)
    answer, found, _ = read.solve(propertyFilename=str(folder / "asked.vnnlib"), options=options, verbose=False)
    point = [found[int(variable)] for variable in read.inputVars[0].flatten()] if answer == "sat" else []
    return answer, np.reshape(point, (-1, policy.contract.n_observations))


@pytest.mark.parametrize("head", ["clip", "discrete", "multi_discrete"])
def test_a_verifier_finds_counterexamples(head: str, tmp_path: Path) -> None:
    """Each is an observation of the box at which the network really is unsafe, up to the tool's tolerance."""
    policy = small(head)
    for item in vnnlib.properties(policy):
        answer, x = marabou(tmp_path, policy, item)
        assert answer == "sat"
        y = outputs(policy, x)
        assert np.array(meaning(item.text(), x, y, slack=1e-5 * max(1.0, float(np.abs(y).max())))).all(), (item.name, x, y)


def test_a_verifier_proves_that_a_squashed_action_stays_inside(tmp_path: Path) -> None:
    policy = small("tanh")
    assert [marabou(tmp_path, policy, item)[0] for item in vnnlib.properties(policy)] == ["unsat"] * 2


def test_a_verifier_proves_a_narrowed_template(tmp_path: Path) -> None:
    """Around an observation at which choice 0 wins clearly, nothing else is ever taken; and 0 is."""
    policy = small("discrete")
    x = np.clip(inside_the_contract(policy.contract), *vnnlib.box(policy))
    y = policy.outputs(x)
    best = x[np.argmax(y[:, 0] - y[:, 1:].max(1))]
    narrowed = [dataclasses.replace(item, low=best - 0.02, high=best + 0.02) for item in vnnlib.properties(policy)]
    assert [marabou(tmp_path, policy, item)[0] for item in narrowed] == ["sat", "unsat", "unsat"]


def test_numbers_are_decimals_that_read_back() -> None:
    rng = np.random.default_rng(5)
    for number in [0.0, 1000.0, -0.1, 1e-12, 1 / 3, 123456789.5, *rng.standard_normal(200) * 10.0 ** rng.integers(-9, 9, 200)]:
        word = vnnlib.Bound(0, ">=", float(number)).text().split()[-1][:-1]
        assert float(word) == number and "e" not in word and "." in word


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (nets.policy("gru"), "layer 1 is a recurrent"),
        (nets.policy("conv2d"), "layer 0 is a conv"),
        (nets.policy("dense", activation="gelu"), "layer 0 has the activation gelu"),
    ],
    ids=["gru", "conv", "gelu"],
)
def test_what_verifiers_do_not_read_is_named(policy: Policy, match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        vnnlib.network(policy)


def test_the_page_lists_every_file_and_what_a_proof_is_worth() -> None:
    policy = small("discrete")
    text = vnnlib.page(policy, vnnlib.properties(policy))
    assert re.findall(r"`(\w+)\.vnnlib`", text) == ["choice_0_never", "choice_1_never", "choice_2_never"]
    assert "not a proof over the integers" in text
