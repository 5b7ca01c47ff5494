/* The policy engine: a checked image, a state, one call per base tick (docs/tick.md, docs/image.md).
 *
 * C99, no allocation, no floating point, no recursion. The machine is little-endian, int is at least 32 bits and
 * `>>` of a negative number is arithmetic (tests/firmware asserts it). Compile with -fno-strict-aliasing: the image is
 * read in place through the types of its fields. */
#ifndef PE_ENGINE_H
#define PE_ENGINE_H

#include <stdint.h>

#include "pe_protocol.h"

enum {
    PE_MAX_OBSERVATIONS = 64,
    PE_MAX_ACTIONS = 16,
    PE_MAX_OPERATIONS = 64,
    PE_MAX_WIDTH = 4096,  /* elements between two operations */
    PE_MAX_MEMORY = 4096, /* numbers of a recurrent policy */
    PE_MAX_INPUTS = PE_MAX_OBSERVATIONS + 2 * PE_MAX_ACTIONS + 1, /* of a shield */
    PE_TRAILER = 32, /* bytes: SHA-256 of all before them */
    PE_LIMIT = (1 << 30) - 1 /* of observations, their ranges and means */
};

/* Header of an image; offsets are from its first byte. */
typedef struct {
    char magic[4];
    uint16_t version, header_bytes;
    uint32_t bytes;
    uint16_t n, m, operations, divider;
    uint32_t period_us;
    uint16_t stale_limit, buffer_bytes;
    uint32_t contract_at, contract_bytes;
    uint32_t channels_at;
    uint32_t program_at, program_bytes;
    uint32_t shield_at, shield_bytes;
    uint32_t vectors_at, steps;
    char name[16];
} pe_image;

typedef struct {
    int32_t low, high;
    uint8_t shift, zero[3];
} pe_observation;

typedef struct {
    int32_t low, high, safe, initial;
} pe_action;

/* A shield printed as C: in = x[n], raw[m], previous[m], fallback; out = applied[m], stage bits. */
typedef void pe_shield(const int32_t *in, int32_t *out);

typedef struct {
    const pe_image *image;
    const pe_observation *observation; /* [n] */
    const pe_action *action;           /* [m] */
    const uint8_t *program;

    /* The caller's, after pe_open. */
    uint8_t *scratch;        /* pe_scratch_bytes of it, 4-aligned; set it, then call pe_reset, before the first tick */
    pe_shield *shield;       /* in place of the image's bytecode, or null */
    uint32_t (*clock)(void); /* a counter for the two durations below, or null */

    int32_t previous[PE_MAX_ACTIONS], held[PE_MAX_ACTIONS], last[PE_MAX_OBSERVATIONS];
    uint32_t phase, stale;
    uint32_t memory; /* numbers, int16, that a recurrent policy keeps; they lie in the scratch memory */

    uint32_t cycles_policy, cycles_shield; /* of the last tick, in counts of `clock` */
} pe_policy;

/* What pe_open found wrong. */
enum {
    PE_OK,
    PE_BAD_PLACE,      /* address or size is no multiple of 4, or smaller than a header and a trailer */
    PE_BAD_MAGIC,      /* not an image, or of another version */
    PE_BAD_TOTAL,      /* size differs from the one in the header */
    PE_BAD_COUNTS,     /* n, m, operations, divider, period or buffer out of range */
    PE_BAD_SECTION,    /* a section leaves the image or is not aligned */
    PE_BAD_CHANNEL,    /* a range is empty or too wide, a safe or initial value lies outside, a shift exceeds 30 */
    PE_BAD_ORDER,      /* operations in an order that is not allowed, unknown ones or flags, or one that this build leaves out */
    PE_BAD_WIDTH,      /* widths disagree, an activation exceeds its buffer, or the memory its limit */
    PE_BAD_OPERATION,  /* a multiplier, shift, bound, size or flag out of range */
    PE_BAD_PROGRAM,    /* operations section shorter or longer than its operations */
    PE_BAD_SHIELD,     /* counts of the bytecode, or its size */
    PE_BAD_INSTRUCTION /* unknown operation, or an operand out of range or not yet written */
};

/* Check an image that nobody vouches for, and fill `p` in its reset state, pointing into the image: keep that in place.
 * `image` is 4-aligned. The trailer is not looked at: that is pe_sealed's. Returns PE_OK, or the number of a check
 * and a null p->image. */
int32_t pe_open(pe_policy *p, const uint8_t *image, uint32_t bytes);

/* Bytes of scratch memory that an opened policy needs: two activation buffers, and what it keeps. */
uint32_t pe_scratch_bytes(const pe_policy *p);

/* State as after power-on. */
void pe_reset(pe_policy *p);

/* One base tick. `step` is PE_STEP_RESET | PE_STEP_MISSED | PE_STEP_INVALID; `observation` is [n], not read when missed
 * or invalid; `raw` and `applied` are [m], filled. Returns the outcome: flags | reasons << PE_REASON_SHIFT. */
uint32_t pe_tick(pe_policy *p, uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied);

/* CRC-32 of the state. */
uint32_t pe_state_digest(const pe_policy *p);

/* Replay the image's vectors. Returns 0, or 1 + the first step that differs. Leaves the state reset. */
uint32_t pe_self_test(pe_policy *p);

/* Whether the trailer of an image of `bytes` is the SHA-256 of all before it. */
int pe_sealed(const uint8_t *image, uint32_t bytes);

#endif
