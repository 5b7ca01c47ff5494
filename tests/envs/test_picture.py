"""Pictures of environments: every state can be drawn, states differ, and a film is a file that others can read."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from puffer_edge import envs  # noqa: E402
from puffer_edge.contract import Contract  # noqa: E402
from puffer_edge.envs import picture  # noqa: E402
from puffer_edge.envs.closed_loop import play  # noqa: E402
from puffer_edge.envs.composition import compose  # noqa: E402
from puffer_edge.envs.frames import stack  # noqa: E402
from puffer_edge.envs.imperfect import imperfect  # noqa: E402
from puffer_edge.envs.imperfections import Imperfections  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported, WriteFailed  # noqa: E402
from puffer_edge.integer.reference import InFloat  # noqa: E402
from puffer_edge.integer.shield import Shield  # noqa: E402
from puffer_edge.policy import Head, Layer, Normalizer, Policy  # noqa: E402


def policy_of(name: str) -> Policy:
    """One that does nothing much."""
    return idle(envs.load(name).contract)


def idle(c: Contract) -> Policy:
    """One that does nothing much."""
    layer = Layer(np.zeros((c.n_outputs, c.n_observations)), np.zeros(c.n_outputs), "none")
    ones = np.ones(c.n_actions)
    return Policy(c, (layer,), Normalizer(np.zeros(c.n_observations), np.ones(c.n_observations)), Head(c.head, ones, np.zeros(c.n_actions)), {})


@pytest.mark.parametrize("name", envs.names())
def test_every_environment_has_a_picture_of_every_state(name: str) -> None:
    environment = envs.load(name)
    a, b = environment.start(0, [0, 1])
    first, second = (np.asarray(picture.frame(environment, state, ("words",))) for state in (a, b))
    assert first.shape == (picture.HEIGHT, picture.WIDTH, 3) and len(np.unique(first.reshape(-1, 3), axis=0)) > 5
    assert (first != second).any()
    far = np.random.default_rng(0).normal(0, 1e6, len(a))
    picture.frame(environment, far)


def test_the_mark_is_the_shields() -> None:
    environment = envs.load("pendulum")
    state = environment.start(0, [0])[0]
    calm, acted = (np.asarray(picture.frame(environment, state, acted=on)) for on in (False, True))
    assert (calm[14, picture.WIDTH - 16] != acted[14, picture.WIDTH - 16]).any() and (calm[40:] == acted[40:]).all()


@pytest.mark.parametrize("name", envs.names())
def test_the_mark_keeps_its_colour_in_a_file(name: str) -> None:
    environment = envs.load(name)
    acted = [picture.frame(environment, environment.start(0, [k])[0], acted=True) for k in range(picture.STRIP)]
    red = np.array([int(picture.ALARM[k : k + 2], 16) for k in (1, 3, 5)])
    for written in (picture.gif(acted, 25.0), picture.strip(acted)):
        pixel = Image.open(io.BytesIO(written)).convert("RGB").getpixel((picture.WIDTH - 16, 14))
        assert np.abs(red - pixel).max() <= 8, pixel


def test_a_composition_is_drawn_as_what_is_inside() -> None:
    inner = envs.load("rover")
    for outer in (compose(inner, Shield.build(inner.contract, inner.shield)).environment, stack(inner, 3)):
        first, second = (np.asarray(picture.frame(e, e.start(0, [5])[0])) for e in (inner, outer))
        assert outer.state_size > inner.state_size and (first == second).all()


def test_a_film_is_in_the_plants_time(tmp_path: Path) -> None:
    environment = envs.load("servo")  # 200 steps of 5 ms: every eighth is a frame of 40 ms
    episode = picture.film(environment, InFloat(policy_of("servo")), Shield.build(environment.contract, environment.shield), 0, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as film:
        assert episode.lengths[0] == 200 and film.n_frames == 25
        assert film.info["duration"] == 40 and film.size == (picture.WIDTH, picture.HEIGHT)
    picture.film(environment, InFloat(policy_of("servo")), Shield.none(environment.contract), 0, tmp_path / "x.png")
    assert Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())).size == (3 * picture.WIDTH, 2 * picture.HEIGHT)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    environment = envs.load("servo")
    proposer, shield = InFloat(policy_of("servo")), Shield.none(environment.contract)
    for path, message in ((tmp_path / "x.mp4", "a .gif or a .png, not 'x.mp4'"), (tmp_path / "no" / "x.gif", "there is no folder")):
        with pytest.raises(InvalidInput, match=message):
            picture.film(environment, proposer, shield, 0, path)
    with pytest.raises(Unsupported, match="servo has no picture"):
        picture.film(replace(environment, draw=None), proposer, shield, 0, tmp_path / "x.gif")
    (tmp_path / "y.gif").mkdir()
    with pytest.raises(WriteFailed, match=r"y\.gif cannot be written"):
        picture.film(environment, proposer, shield, 0, tmp_path / "y.gif")
    assert list((tmp_path / "y.gif").iterdir()) == []


@pytest.mark.parametrize("name", ["gym:CartPole-v1", "gymvec:CartPole-v1", "gym:FrozenLake-v1", "pettingzoo:mpe2.simple_spread_v3"])
def test_environments_from_elsewhere_draw_themselves(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium" if name.startswith("gym") else "mpe2")
    pytest.importorskip("pygame")
    environment = envs.load(name)
    c = environment.contract
    proposer, shield = InFloat(idle(c)), Shield.none(c)
    filmed = picture.film(environment, proposer, shield, 3, tmp_path / "x.gif")
    played = play(environment, proposer, shield, 1, 3)
    assert filmed.returns == played.returns and filmed.lengths == played.lengths and (filmed.observations == played.observations).all()
    with Image.open(tmp_path / "x.gif") as film:
        assert film.n_frames == -(-played.lengths[0] // picture.every(c.rate_hz)) and film.size == (picture.WIDTH, picture.HEIGHT)
        assert len(np.unique(np.asarray(film.convert("RGB"))[60:].reshape(-1, 3), axis=0)) > 3, "below the words something is to be seen"


@pytest.mark.parametrize("around", [{}, {"delay_us": 20_000}])
@pytest.mark.parametrize("name", ["Painted", "PaintedAlways"])
def test_an_environment_of_ones_own_is_filmed_in_its_states(name: str, around: dict[str, int], tmp_path: Path) -> None:
    painted = pytest.importorskip("tests.envs.painted")
    environment = imperfect(envs.load(f"tests.envs.painted:{name}"), Imperfections(**around))
    open_ = painted.Painted.open
    picture.film(environment, InFloat(idle(environment.contract)), Shield.none(environment.contract), 0, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (10, 100)
        for k in range(10):
            film.seek(k)
            shown = np.asarray(film.convert("L"))
            assert abs(shown[160, 400] - 25.0 * k) <= 3 and shown[160, 100] > 245, "at the right, as high as the frame; beside it is paper"
    assert painted.Painted.open == open_, "what was made for the film is closed"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PaintedNever", "render_mode is None, not 'rgb_array'; let it take an argument render_mode"),
        ("PaintedOnScreen", r'metadata\["render_modes"\] names human, a film needs \'rgb_array\''),
        ("PaintedFlat", r"render gave uint8 of shape \(40, 20\), .*must give \(height, width, 3\) uint8"),
        ("PaintedWrongly", "render raised RuntimeError: no display"),
    ],
)
def test_what_cannot_draw_itself_is_said(name: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("tests.envs.painted")
    environment = envs.load(f"tests.envs.painted:{name}")
    with pytest.raises(Unsupported, match=f"{name}.*{message}"):
        picture.film(environment, InFloat(idle(environment.contract)), Shield.none(environment.contract), 0, tmp_path / "x.gif")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    environment = envs.load("gym:CartPole-v1")
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(Unsupported, match=r"gym:CartPole-v1 cannot be filmed: .*pygame is not installed"):
        picture.film(environment, InFloat(idle(environment.contract)), Shield.none(environment.contract), 0, tmp_path / "x.gif")


def test_a_simulator_of_ones_own_needs_a_picture(tmp_path: Path) -> None:
    environment = envs.load("tests.envs.test_loading:DRIFTING")
    for task in (environment, imperfect(environment, Imperfections(delay_us=1000.0))):
        with pytest.raises(Unsupported, match=r"has no picture: .*a method picture\(\)"):
            picture.film(task, InFloat(idle(task.contract)), Shield.none(task.contract), 0, tmp_path / "x.gif")
