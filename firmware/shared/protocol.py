"""The link protocol, as one table for both ends; the C header is generated from it.

A frame is COBS(type u8, sequence u8, payload, crc32 u32) followed by one zero byte; a zero byte may also precede it.
Numbers are little-endian. A reply carries the request's type with bit 7 set and the request's sequence number.
A request with the type, sequence and CRC of the one before it is a repetition: the device answers again and does nothing
("hello" alone is always carried out). Imports nothing, so that MicroPython loads it as it stands.
"""

VERSION = 1
MAX_PAYLOAD = 288
INSTALL_CHUNK = 256

# name: (type, format of the request, format of the reply); a trailing "*" is the variable rest in bytes
MESSAGES = {
    # () -> protocol, kind, major, minor, patch, state, shield, clock_hz (of the cycles, 0: none), max_payload, n_obs, n_act, target, unique id
    "hello": (0x01, "", "<HBBBBBBIHHH12s8s"),
    # () -> image bytes, contract bytes, install count, digests of image, contract, program, shield
    "contract": (0x02, "", "<III32s32s32s32s"),
    # offset -> text from there, at most INSTALL_CHUNK bytes
    "read_contract": (0x03, "<I", "*"),
    # total bytes, sha256 of the whole image -> ()
    "install_begin": (0x04, "<I32s", ""),
    # offset, 1 to INSTALL_CHUNK bytes; chunks come in order -> bytes held so far
    "install_data": (0x05, "<I*", "<I"),
    # () -> install count; only now does the new policy replace the old one
    "install_commit": (0x06, "", "<I"),
    # mode, digests of contract, program, shield -> ()
    "arm": (0x07, "<B32s32s32s", ""),
    "disarm": (0x08, "", ""),
    # step flags, 3 zero bytes, i32 observation[n_obs] (none if MISSED)
    # -> outcome, state crc32, cycles of policy, of shield, i32 raw[n_act], i32 applied[n_act]
    "step": (0x09, "<I*", "<IIII*"),
    # as step, while disarmed; neither drives an actuator, only free running does
    "replay": (0x0A, "<I*", "<IIII*"),
    # () -> ticks, stage counts [8], invalid, stale, missed, saturated, bad frames, repeated frames, deadline misses, cycles_max
    # (counted since the last arming; the two of frames since boot)
    "status": (0x0B, "", "<I8IIIIIIIII"),
    # () -> (); then the service mode: USB boot loader or REPL, only while disarmed
    "service": (0x0C, "", ""),
    # () -> (); then a reset of the chip
    "reset": (0x0D, "", ""),
}

REPLY = 0x80
# error reply: code, request type, 2 zero bytes, detail
ERROR = 0xFF
ERROR_FORMAT = "<BBHI"

ERRORS = {
    "unknown_message": 1,  # detail: type
    "bad_length": 2,  # detail: length expected
    "no_policy": 3,
    "armed": 4,  # refused while armed
    "not_armed": 5,
    "digest_mismatch": 6,  # detail: bit 0 contract, bit 1 program, bit 2 shield
    "too_large": 7,  # detail: bytes that fit
    "bad_order": 8,  # detail: offset expected
    "bad_digest": 9,  # what arrived is not what was announced
    "bad_image": 10,  # detail: byte offset or check number in the image
    "self_test": 11,  # detail: first differing step
    "flash": 12,  # detail: address whose read-back differed
    "no_driver": 13,  # free running needs the user's read and write
    "not_here": 14,  # this build cannot do it
}

# linux_float: not the program's integers, so that its bits differ
KINDS = {"c": 1, "micropython": 2, "host": 3, "linux": 4, "linux_float": 5}
STATES = {"empty": 0, "disarmed": 1, "lock_step": 2, "free_run": 3, "failed": 4}
SHIELDS = {"none": 0, "bytecode": 1, "printed": 2}
ARM_LOCK_STEP = 0
ARM_FREE_RUN = 1

# flags of a step request (and of a vector)
STEP_RESET = 1
STEP_MISSED = 2
STEP_INVALID = 4

# outcome: low half flags, high half reasons
SATURATED = 1
MISSED = 2
INVALID = 4
STALE = 8
POLICY_RAN = 16
# reasons: bit k is stage k of the shield (at most 8), then the two fallbacks
REASON_SHIFT = 16
MAX_STAGES = 8
REASON_INVALID = 256
REASON_STALE = 512
