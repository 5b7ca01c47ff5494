"""Nested spaces as flat rows: what comes back is what went in, as views; and as numbers, with names and bounds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puffer_edge.envs.actions import Actions
from puffer_edge.envs.emulation import Layout, Rows
from puffer_edge.errors import InvalidInput, Unsupported

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
BOXES = st.builds(
    lambda shape, dtype: spaces.Box(0 if np.dtype(dtype).kind == "u" else -5, 100, shape, dtype),
    SHAPES,
    st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.int16, np.int32, np.int64]),
)
LEAVES = st.one_of(
    BOXES,
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-5, 5)),
    st.builds(lambda nvec: spaces.MultiDiscrete(nvec), st.lists(st.integers(1, 5), min_size=1, max_size=4)),
    st.builds(lambda n: spaces.MultiBinary(n), st.one_of(st.integers(1, 9), st.lists(st.integers(1, 3), min_size=1, max_size=2))),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.text("abcxyz_. 1", min_size=1, max_size=4), inner, min_size=1, max_size=4).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=4).map(spaces.Tuple),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)


def arrays(value: Any) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else None
    return [value] if parts is None else [leaf for part in parts for leaf in arrays(part)]


@settings(max_examples=150, deadline=None)
@given(SPACES, st.integers(0, 2**31))
def test_what_comes_back_is_what_went_in(space: Any, seed: int) -> None:
    space.seed(seed)
    layout, samples = Layout.of(space), [space.sample() for _ in range(3)]
    rows = np.full((3, layout.bytes), 0xA5, np.uint8)
    for row, value in zip(rows, samples):
        layout.flatten(value, row)
    for k, value in enumerate(samples):
        back = layout.views(rows[k])
        assert same(value, back) and space.contains(back)
    batch = layout.views(rows)
    assert all(np.shares_memory(leaf, rows) for leaf in arrays(batch))
    again = Rows(layout, np.full_like(rows, 0x5A))
    again.write(batch)
    assert same(again.nested, batch) and all(np.shares_memory(leaf, again.data) for leaf in arrays(again.nested))
    numbers = layout.numbers(rows)
    assert numbers.shape == (3, layout.n) == (3, len(set(layout.names())))
    low, high = layout.bounds()
    assert ((numbers >= low) & (numbers <= high)).all()
    for k, value in enumerate(samples):
        one = np.empty(layout.n)
        layout.put(value, one)
        np.testing.assert_array_equal(one, numbers[k])
    assert all(name.isidentifier() and name.isascii() for name in layout.names())


def test_what_is_written_in_place_is_there_and_arrays_that_come_again_are_copied_anew() -> None:
    space = spaces.Dict({"a": spaces.Box(-9, 9, (2,), np.float32), "b": spaces.Tuple([spaces.Box(-9, 9, (4,)), spaces.Discrete(5)])})
    layout = Layout.of(space)
    rows = Rows(layout, np.zeros((3, layout.bytes), np.uint8))
    rows.nested["a"][:] = 7.0
    before = rows.data.copy()
    rows.write(rows.nested)
    np.testing.assert_array_equal(rows.data, before)
    mine = {"a": np.ones((3, 2), np.float32), "b": (np.ones((3, 4), np.float32), np.array([0, 1, 2]))}
    for k in range(3):
        mine["a"][:], mine["b"][0][:], mine["b"][1][:] = k, 2.0 * k, (k, 1, 2)
        rows.write(mine)
        assert same(rows.nested, mine)
    rows.write(rows.nested)
    assert same(rows.nested, mine)
    other = {"a": np.full((3, 2), 5.0), "b": (np.asfortranarray(np.full((3, 4), 6.0, np.float32)), [4, 4, 4])}  # float64, by column, a list
    rows.write(other)
    assert (rows.nested["a"] == 5).all() and (rows.nested["b"][0] == 6).all() and (rows.nested["b"][1] == 4).all()
    rows.write(mine)
    assert same(rows.nested, mine), "what was written before is not taken to be there"
    with pytest.raises(InvalidInput, match=r"\['a'\] has shape \(3, 3\)"):
        rows.write({**mine, "a": np.ones((3, 3), np.float32)})
    with pytest.raises(InvalidInput, match=r"\['b'\]\[1\] is missing"):
        rows.write({**mine, "b": mine["b"][:1]})
    again = pickle.loads(pickle.dumps(layout))
    assert again.bytes == layout.bytes and len(again.parts(mine)) == 3


def test_a_value_without_numbers_takes_no_place() -> None:
    space = spaces.Dict({"a": spaces.Box(0, 1, (2, 0), np.float32), "b": spaces.Dict({}), "c": spaces.Discrete(3), "d": spaces.Tuple([])})
    layout, value = Layout.of(space), space.sample()
    rows = Rows(layout, np.zeros((4, layout.bytes), np.uint8))
    for _ in range(2):
        rows.write({"a": np.zeros((4, 2, 0), np.float32), "b": {}, "c": np.full(4, 2), "d": ()})
        assert rows.nested["a"].shape == (4, 2, 0) and rows.nested["b"] == {} and rows.nested["d"] == () and (rows.nested["c"] == 2).all()
    row = np.zeros(layout.bytes, np.uint8)
    layout.flatten(value, row)
    assert same(layout.views(row), value) and layout.numbers(row).shape == (3,)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (np.array([1, 300]), r"\['a'\]\[1\] is 300, which uint8 does not hold"),
        (np.array([-1, 2]), r"\['a'\]\[0\] is -1, which uint8 does not hold"),
        (np.array([0.0, 0.7]), r"\['a'\]\[1\] is 0.7, which uint8 does not hold"),
    ],
)
def test_numbers_that_a_type_does_not_hold_are_refused(given: Any, match: str) -> None:
    layout = Layout.of(spaces.Dict({"a": spaces.Box(0, 255, (2,), np.uint8), "b": spaces.Box(-1, 1, (1,), np.float32)}))
    rows = Rows(layout, np.zeros(layout.bytes, np.uint8))
    with pytest.raises(InvalidInput, match=match):
        rows.write({"a": given, "b": np.array([0.1])})
    rows.write({"a": np.array([7.0, 255.0]), "b": np.array([0.1])})  # whole numbers of another type are the same numbers; floats are rounded
    assert rows.nested["a"].tolist() == [7, 255] and rows.nested["b"][0] == np.float32(0.1)


def test_torch_sees_the_same_memory() -> None:
    torch = pytest.importorskip("torch")
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2, 3), np.float32), "b": spaces.Tuple([spaces.Discrete(5), spaces.MultiBinary(3)])})
    layout = Layout.of(space)
    rows = np.zeros((4, layout.bytes), np.uint8)
    for row in rows:
        layout.flatten(space.sample(), row)
    tensor = torch.from_numpy(rows)
    seen, wanted = layout.views(tensor), layout.views(rows)
    for leaf, theirs in zip(arrays(seen), arrays(wanted)):
        assert rows.ctypes.data <= leaf.data_ptr() < rows.ctypes.data + rows.nbytes
        np.testing.assert_array_equal(leaf.numpy(), theirs)
    seen["a"][:] = 0.5
    assert (wanted["a"] == 0.5).all()


def test_numbers_are_in_the_order_that_the_names_say() -> None:
    parts = {"speed": spaces.Box(-2.0, 2.0, (2,), np.float64), "gear": spaces.Discrete(3, start=-1), "lamps": spaces.MultiBinary(2)}
    layout = Layout.of(spaces.Dict({"car": spaces.Dict(parts), "pair": spaces.Tuple([spaces.MultiDiscrete([2, 2]), spaces.Box(0, 1, ())])}))
    assert layout.names() == (
        "car_gear_0", "car_gear_1", "car_gear_2", "car_lamps_0", "car_lamps_1", "car_speed_0", "car_speed_1",
        "pair_0_0_0", "pair_0_0_1", "pair_0_1_0", "pair_0_1_1", "pair_1",
    )  # fmt: skip
    value = {"car": {"speed": np.array([1.5, -0.5]), "gear": 1, "lamps": np.array([1, 0], np.int8)}, "pair": (np.array([1, 0]), 0.25)}
    out = np.empty(layout.n)
    layout.put(value, out)
    assert out.tolist() == [0, 0, 1, 1, 0, 1.5, -0.5, 0, 1, 1, 0, 0.25]
    assert Layout.of(spaces.Dict({"a_b": spaces.Discrete(2), "a": spaces.Tuple([spaces.Discrete(2)]), "a.b": spaces.Discrete(2)})).names() == (
        "a_0_0", "a_0_1", "a_b_0", "a_b_1", "a_b_0_", "a_b_1_",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (lambda: spaces.Sequence(spaces.Discrete(2)), r"^the space is Sequence, which has no fixed size"),
        (lambda: spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.Text(5)])}), r"^\['a'\]\[1\] is Text"),
        (lambda: spaces.Dict({"g": spaces.Graph(spaces.Box(0, 1, (1,)), None)}), r"\['g'\] is Graph"),
        (lambda: spaces.Dict({"g": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)])}), r"\['g'\] is OneOf"),
        (lambda: spaces.Dict({}), "nothing to observe"),
    ],
)
def test_spaces_without_a_fixed_size_are_named(space: Any, match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        Layout.of(space())


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"a": (np.array([0.0, np.nan], np.float32), 0)}, r"\['a'\]\[0\]\[1\] is nan in step 7: its space allows -1 … 1"),
        ({"a": (np.array([0.0, 1.5], np.float32), 0)}, r"\['a'\]\[0\]\[1\] is 1.5 in step 7"),
        ({"a": (np.zeros(3, np.float32), 0)}, r"\['a'\]\[0\] has shape \(3,\) in step 7"),
        ({"a": (np.zeros(2, np.float32), 4)}, r"\['a'\]\[1\] is 4 in step 7: its space allows 0 … 3"),
        ({"a": (np.zeros(2, np.float32), 1.0)}, r"\['a'\]\[1\] is of type float64 in step 7"),
        ({"a": (np.array(["x", "y"]), 0)}, r"\['a'\]\[0\] is of type <U1"),
        ({"a": (np.zeros(2, np.float32),)}, r"\['a'\]\[1\] is missing: \['a'\] is of type tuple"),
        ({"b": 0}, r"\['a'\] is missing: the value has \['b'\]"),
    ],
)
def test_a_value_outside_its_space_is_named(value: Any, match: str) -> None:
    layout = Layout.of(spaces.Dict({"a": spaces.Tuple([spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(4)])}))
    with pytest.raises(InvalidInput, match=match):
        layout.check(value, 7)


def test_rows_refuse_what_would_be_stretched() -> None:
    layout = Layout.of(spaces.Dict({"a": spaces.Box(-1, 1, (2,))}))
    with pytest.raises(InvalidInput, match=r"\['a'\] has shape \(1,\): \(2,\) belongs"):
        layout.flatten({"a": np.zeros(1)}, np.zeros(layout.bytes, np.uint8))
    with pytest.raises(InvalidInput, match=r"\['a'\] has shape \(2,\): \(3, 2\) belongs"):
        layout.flatten({"a": np.zeros(2)}, np.zeros((3, layout.bytes), np.uint8))


@settings(max_examples=100, deadline=None)
@given(SPACES, st.integers(0, 2**31))
def test_every_action_is_of_its_space(space: Any, seed: int) -> None:
    try:
        actions = Actions.of(space)
    except Unsupported as error:
        assert "mix" in str(error) or "one value only" in str(error)
        return
    rng = np.random.default_rng(seed)
    if actions.head == "clip":
        physical = rng.uniform([c.low for c in actions.channels], [c.high for c in actions.channels], (2, len(actions.channels)))
    else:
        rows = [[level for (level,) in actions.levels]] if actions.head == "discrete" else actions.levels
        physical = np.array([[rng.choice(row) for row in rows] for _ in range(2)])
    assert actions.n_outputs == (sum(actions.sizes) or len(actions.channels))
    values = [actions.value(row) for row in physical]
    assert all(space.contains(value) for value in values)
    batched = actions.values(physical)
    for k, value in enumerate(values):
        assert all(np.array_equal(a[k], b) for a, b in zip(arrays(batched), arrays(value)))


def test_heads_and_what_has_none() -> None:
    assert Actions.of(spaces.Discrete(3, start=2)).levels == ((2.0,), (3.0,), (4.0,))
    nested = Actions.of(spaces.Dict({"gear": spaces.Discrete(3), "lamps": spaces.MultiBinary(2)}))
    assert (nested.head, nested.sizes, [c.name for c in nested.channels]) == ("multi_discrete", (3, 2, 2), ["gear", "lamps_0", "lamps_1"])
    with pytest.raises(Unsupported, match=r"mix choices \(\['a'\]\) and boxes \(\['b'\]\[0\]\)"):
        Actions.of(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple([spaces.Box(0, 1, (1,))])}))
    with pytest.raises(Unsupported, match=r"\['b'\] is Box.*without bounds"):
        Actions.of(spaces.Dict({"b": spaces.Box(-np.inf, np.inf, (1,))}))
    with pytest.raises(Unsupported, match="a0 has one value only"):
        Actions.of(spaces.Discrete(1))
    assert pickle.loads(pickle.dumps(nested)).sizes == nested.sizes


def test_masks() -> None:
    actions, allowed = Actions.of(spaces.MultiDiscrete([2, 3])), np.zeros(5, bool)
    actions.mask((np.array([1, 0]), np.array([0, 1, 1])), allowed, "x")
    assert allowed.tolist() == [True, False, False, True, True]
    with pytest.raises(Unsupported, match="x: an action mask of 4 numbers does not belong to 5 outputs"):
        actions.mask(np.ones(4), allowed, "x")
