/* Generated from firmware/shared/protocol.py by firmware/build.py. */
#ifndef PE_PROTOCOL_H
#define PE_PROTOCOL_H

enum {
    PE_PROTOCOL_VERSION = 1,
    PE_MAX_PAYLOAD = 288,
    PE_INSTALL_CHUNK = 256,
    PE_REPLY = 128,
    PE_ERROR = 255,
    PE_ARM_LOCK_STEP = 0,
    PE_ARM_FREE_RUN = 1,
    PE_STEP_RESET = 1,
    PE_STEP_MISSED = 2,
    PE_STEP_INVALID = 4,
    PE_SATURATED = 1,
    PE_MISSED = 2,
    PE_INVALID = 4,
    PE_STALE = 8,
    PE_POLICY_RAN = 16,
    PE_REASON_SHIFT = 16,
    PE_MAX_STAGES = 8,
    PE_REASON_INVALID = 256,
    PE_REASON_STALE = 512
};

/* Requests, and the bytes of their payloads: at least, where more may follow. */
enum {
    PE_HELLO = 1,
    PE_HELLO_BYTES = 0,
    PE_CONTRACT = 2,
    PE_CONTRACT_BYTES = 0,
    PE_READ_CONTRACT = 3,
    PE_READ_CONTRACT_BYTES = 4,
    PE_INSTALL_BEGIN = 4,
    PE_INSTALL_BEGIN_BYTES = 36,
    PE_INSTALL_DATA = 5,
    PE_INSTALL_DATA_BYTES = 4,
    PE_INSTALL_COMMIT = 6,
    PE_INSTALL_COMMIT_BYTES = 0,
    PE_ARM = 7,
    PE_ARM_BYTES = 97,
    PE_DISARM = 8,
    PE_DISARM_BYTES = 0,
    PE_STEP = 9,
    PE_STEP_BYTES = 4,
    PE_REPLAY = 10,
    PE_REPLAY_BYTES = 4,
    PE_STATUS = 11,
    PE_STATUS_BYTES = 0,
    PE_SERVICE = 12,
    PE_SERVICE_BYTES = 0,
    PE_RESET = 13,
    PE_RESET_BYTES = 0
};

enum {
    PE_ERROR_UNKNOWN_MESSAGE = 1,
    PE_ERROR_BAD_LENGTH = 2,
    PE_ERROR_NO_POLICY = 3,
    PE_ERROR_ARMED = 4,
    PE_ERROR_NOT_ARMED = 5,
    PE_ERROR_DIGEST_MISMATCH = 6,
    PE_ERROR_TOO_LARGE = 7,
    PE_ERROR_BAD_ORDER = 8,
    PE_ERROR_BAD_DIGEST = 9,
    PE_ERROR_BAD_IMAGE = 10,
    PE_ERROR_SELF_TEST = 11,
    PE_ERROR_FLASH = 12,
    PE_ERROR_NO_DRIVER = 13,
    PE_ERROR_NOT_HERE = 14
};

enum {
    PE_KIND_C = 1,
    PE_KIND_MICROPYTHON = 2,
    PE_KIND_HOST = 3
};

enum {
    PE_STATE_EMPTY = 0,
    PE_STATE_DISARMED = 1,
    PE_STATE_LOCK_STEP = 2,
    PE_STATE_FREE_RUN = 3,
    PE_STATE_FAILED = 4
};

enum {
    PE_SHIELD_NONE = 0,
    PE_SHIELD_BYTECODE = 1,
    PE_SHIELD_PRINTED = 2
};

#endif
