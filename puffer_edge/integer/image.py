"""The policy image: contract, program, shield and self-test vectors as the one file that every board runs (``docs/image.md``)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from puffer_edge.contract import Contract
from puffer_edge.errors import BundleError, ContractError, DoesNotFit, InvalidInput
from puffer_edge.integer.program import Program
from puffer_edge.integer.shield import Shield
from puffer_edge.integer.vectors import Vectors

MAGIC = b"PEP1"
VERSION = 1
_HEADER = struct.Struct("<4sHHIHHHHIHHIIIIIIIII16s")
DIGEST_BYTES = 32
MAX_OBSERVATIONS, MAX_ACTIONS = 64, 16
"""A frame of the link carries a step's observations in 288 bytes, and the C engine keeps its arrays without a heap."""


@dataclass(frozen=True, eq=False)
class Image:
    """What a policy image holds.

    Attributes:
        contract: the contract.
        program: the policy in integers.
        shield: the shield.
        vectors: self-test steps that the board replays when it loads the image.

    Raises:
        DoesNotFit: the contract has more channels than a board takes.
    """

    contract: Contract
    program: Program
    shield: Shield
    vectors: Vectors

    def __post_init__(self) -> None:
        c = self.contract
        for what, needs, has in (("observation", c.n_observations, MAX_OBSERVATIONS), ("action", c.n_actions, MAX_ACTIONS)):
            if needs > has:
                raise DoesNotFit(f"{what} channels", needs, has, "a board", "leave out what it need not know; it trains and evaluates as it is")

    @cached_property
    def data(self) -> bytes:
        """The packed file."""
        return _pack(self)

    @property
    def digest(self) -> bytes:
        """SHA-256 of all but the last 32 bytes, which it is."""
        return self.data[-DIGEST_BYTES:]


def unpack(data: bytes, stages: Sequence[str] = ()) -> Image:
    """Read an image; nothing in it is trusted.

    Args:
        data: the file.
        stages: names of the shield's stages, which the image does not hold.

    Raises:
        BundleError: damaged, inconsistent or from a newer version.
        RangeError: an integer could leave its proved range.
    """
    if len(data) < _HEADER.size + DIGEST_BYTES or data[:4] != MAGIC:
        raise BundleError("this is not a policy image: it does not begin with PEP1")
    h = _HEADER.unpack_from(data)
    if h[1] > VERSION:
        raise BundleError(f"the image has format {h[1]}, this version reads up to {VERSION}: upgrade puffer-edge")
    if h[3] != len(data):
        raise BundleError(f"the image says it has {h[3]} bytes, there are {len(data)}: it is cut or padded")
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise BundleError("the image's digest does not match its content: it is damaged")
    count, contract_at, contract_bytes, ops_at, ops_bytes, shield_at, shield_bytes = h[6], h[11], h[12], h[14], h[15], h[16], h[17]
    try:
        contract = Contract.from_json(_slice(data, contract_at, contract_bytes).decode("ascii"))
    except (UnicodeDecodeError, InvalidInput, ContractError) as error:
        raise BundleError(f"the image's contract cannot be read: {error}") from None
    program = Program.unpack(contract, _slice(data, ops_at, ops_bytes), count)
    shield = Shield.from_bytecode(contract, _slice(data, shield_at, shield_bytes), stages)
    size = Vectors.row_bytes(contract) * h[19]
    vectors = Vectors.unpack(contract, _slice(data, h[18], size))
    try:
        image = Image(contract, program, shield, vectors)
    except DoesNotFit as error:
        raise BundleError(f"the image cannot be run: {error}") from None
    if image.data != data:
        raise BundleError("the image is not in canonical form: a header field contradicts its contract")
    return image


def _slice(data: bytes, at: int, size: int) -> bytes:
    if at % 4 or at < _HEADER.size or at + size > len(data) - DIGEST_BYTES:
        raise BundleError(f"a section at {at} of {size} bytes lies outside the image of {len(data)} bytes")
    return data[at : at + size]


def _pack(image: Image) -> bytes:
    c = image.contract
    text = c.to_json().encode("ascii")
    sections = [text, _channels(c), image.program.packed, image.shield.bytecode, image.vectors.pack()]
    offsets, body = [], bytearray(_HEADER.size)
    for section in sections:
        offsets.append(len(body))
        body += section + bytes(-len(section) % 4)
    _HEADER.pack_into(
        body, 0, MAGIC, VERSION, _HEADER.size, len(body) + DIGEST_BYTES, c.n_observations, c.n_actions, len(image.program.ops),
        c.policy_divider, c.period_us, c.staleness_limit, image.program.activation_bytes, offsets[0], len(text), offsets[1],
        offsets[2], len(sections[2]), offsets[3], len(sections[3]), offsets[4], len(image.vectors), c.name.encode(),
    )  # fmt: skip
    return bytes(body) + hashlib.sha256(bytes(body)).digest()


def _channels(c: Contract) -> bytes:
    rows = zip(c.observation_low, c.observation_high, c.shield_shift)
    observations = b"".join(struct.pack("<iiB3x", int(low), int(high), int(shift)) for low, high, shift in rows)
    actions: npt.NDArray[np.int32] = np.stack([c.action_low, c.action_high, c.action_safe, c.action_initial], 1)
    return observations + actions.astype("<i4").tobytes()
