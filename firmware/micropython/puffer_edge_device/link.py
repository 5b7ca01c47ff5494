"""Frames in, replies out: the 13 messages of protocol.py, between the ticks."""

import struct

from . import VERSION
from .device import BAD_FRAMES, LOCK_STEP, REPEATED, Refused, load
from .engine import store
from .frames import OVERHEAD, Decoder, frame_bytes, seal
from .protocol import ERROR, ERROR_FORMAT, INSTALL_CHUNK, KINDS, MAX_PAYLOAD, MESSAGES, REPLY, SHIELDS, STEP_MISSED
from .protocol import VERSION as PROTOCOL

AT = 2  # where the payload begins in a frame's body
BYTES_PER_POLL = 64  # so that a noisy line cannot hold up a tick


class Link:
    """``leave`` is set when the host asked for the prompt, ``reset_asked`` when it asked for a reset."""

    def __init__(self, board, device):
        self.board, self.device = board, device
        self.decoder = Decoder(MAX_PAYLOAD)
        self.body = bytearray(MAX_PAYLOAD + OVERHEAD)
        self.out = bytearray(frame_bytes(MAX_PAYLOAD))
        self.out_length = 0
        self.seen = [-1, 0, 0, 0]  # type, sequence and CRC of the last request
        self.handlers = {}
        for name, (code, request, reply) in MESSAGES.items():
            self.handlers[code] = (getattr(self, "_" + name), struct.calcsize(request.rstrip("*")), request.endswith("*"), reply)
        self.leave = self.reset_asked = False
        self.prompt = False  # a frame has just begun with a carriage return: with Ctrl-C next, it is no frame

    def poll(self):
        """Take what has arrived, up to a bound; returns whether anything had."""
        for k in range(BYTES_PER_POLL):
            byte = self.board.read()
            if byte < 0:
                return k > 0
            prompt = byte == 13 and not self.decoder.started
            if byte == 3 and self.prompt and self.device.may_leave:
                self.leave = True  # what mpremote sends first
            elif self.decoder.put(byte):
                self._answer()
            self.prompt = prompt
            if self.leave or self.reset_asked:
                return True
        return True

    def _answer(self):
        decoder, seen = self.decoder, self.seen
        repeated = seen[0] == decoder.type and seen[1] == decoder.sequence and seen[2] == decoder.crc[0] and seen[3] == decoder.crc[1]
        if repeated and decoder.type != MESSAGES["hello"][0]:
            self.device.add(REPEATED, 1)
        else:
            seen[0], seen[1] = decoder.type, decoder.sequence
            seen[2], seen[3] = decoder.crc[0], decoder.crc[1]
            self._handle()
        self.board.write(self.out, self.out_length)

    def _handle(self):
        decoder, body = self.decoder, self.body
        body[0] = decoder.type | REPLY
        body[1] = decoder.sequence
        try:
            if decoder.type not in self.handlers:
                raise Refused("unknown_message", decoder.type)
            handler, length, more, reply = self.handlers[decoder.type]
            if decoder.length < length or decoder.length > length and not more:
                raise Refused("bad_length", length)
            size = handler(decoder.body, reply)
        except Refused as e:
            body[0] = ERROR
            struct.pack_into(ERROR_FORMAT, body, AT, e.code, decoder.type, 0, e.detail)
            size = 8
        self.out_length = seal(body, AT + size, self.out)

    # One method a message: takes the request's body and the format of the reply, fills the reply, returns its length.

    def _hello(self, request, reply):
        board, image, engine = self.board, self.device.image, self.device.engine
        n, m, kind = (image.n, image.m, engine.shield_kind) if image else (0, 0, SHIELDS["none"])
        about = (PROTOCOL, KINDS["micropython"]) + VERSION + (self.device.state, kind, board.clock_hz, MAX_PAYLOAD, n, m)
        return self._pack(reply, about + (board.name, board.unique_id))

    def _contract(self, request, reply):
        image = self._image()
        return self._pack(reply, (image.bytes, image.contract_bytes, self.device.installs) + image.digests)

    def _read_contract(self, request, reply):
        at = struct.unpack_from("<I", request, AT)[0]
        return self._image().contract(at, memoryview(self.body)[AT : AT + INSTALL_CHUNK])

    def _install_begin(self, request, reply):
        self.device.begin(*struct.unpack_from("<I32s", request, AT))
        return 0

    def _install_data(self, request, reply):
        size = self.decoder.length - 4
        if not 1 <= size <= INSTALL_CHUNK:
            raise Refused("bad_length", 4 + INSTALL_CHUNK)
        at = struct.unpack_from("<I", request, AT)[0]
        return self._pack(reply, (self.device.receive(at, memoryview(request)[AT + 4 : AT + 4 + size]),))

    def _install_commit(self, request, reply):
        return self._pack(reply, (self.device.commit(),))

    def _arm(self, request, reply):
        self.device.arm(*struct.unpack_from("<B32s32s32s", request, AT))
        return 0

    def _disarm(self, request, reply):
        self.device.disarm()
        return 0

    def _step(self, request, reply):
        if self.device.state != LOCK_STEP:
            raise Refused("armed" if self.device.armed else "not_armed")
        return self._tick(request)

    def _replay(self, request, reply):
        self.device.check_disarmed()
        self._image()
        return self._tick(request)

    def _tick(self, request):
        """Nothing is allocated from the frame's last byte to the reply."""
        device, body = self.device, self.body
        flags = request[AT]
        n = 0 if flags & STEP_MISSED else device.image.n
        if self.decoder.length != 4 + 4 * n:
            raise Refused("bad_length", 4 + 4 * n)
        beyond = load(request, AT + 4, device.observation, n)
        device.result(device.step(flags, beyond), body, AT, AT + 16)
        store(body, AT + 8, device.engine.policy_us if self.board.clock_hz else 0)
        store(body, AT + 12, device.engine.shield_us if self.board.clock_hz else 0)
        return 16 + 8 * device.image.m

    def _status(self, request, reply):
        self.device.counters[BAD_FRAMES] = self.decoder.bad
        at = AT
        for value in self.device.counters:
            at = store(self.body, at, value)
        return at - AT

    def _service(self, request, reply):
        self.device.check_disarmed()
        if not self.device.may_leave:
            raise Refused("not_here")
        self.leave = True
        return 0

    def _reset(self, request, reply):
        self.reset_asked = True
        return 0

    def _pack(self, form, values):
        struct.pack_into(form, self.body, AT, *values)
        return struct.calcsize(form)

    def _image(self):
        if not self.device.engine:
            raise Refused("no_policy")
        return self.device.image
