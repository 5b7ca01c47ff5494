/* The engine as a WebAssembly module: one policy an instance.
 *
 * Linear memory: the stack first (an overflow traps), then data, then from __heap_base on the image, and after it the
 * scratch memory of the program. Only `room` and `open` let it grow: whoever holds a view of it takes a new one after them.
 *
 * room(bytes) -> address for an image; copy it there; open(bytes) -> 0; then tick, as often as wanted. */
#include "pe_engine.h"
#include "pe_sha256.h"

#define EXPORT(name) __attribute__((export_name(name)))

enum { PAGE = 65536, MAX_IMAGE = 16384 * 1024, ALIGNMENT = 16 };
enum { UNSEALED = 100, NO_MEMORY = 101 }; /* what `open` says beside the checks of pe_open */

extern uint8_t __heap_base; /* the linker's */

static pe_policy policy;
static int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
static uint8_t digest[PE_SHA256_BYTES];

static uint32_t aligned(uint32_t address) { return (address + (ALIGNMENT - 1u)) & ~(ALIGNMENT - 1u); }
static uint32_t image_address(void) { return aligned((uint32_t)&__heap_base); }

/* Of the open policy's program. */
static uint32_t scratch_bytes(void) { return pe_scratch_bytes(&policy); }

/* Whether memory reaches to `end`, grown if need be. */
static int reach(uint32_t end)
{
    const uint32_t pages = (end + (PAGE - 1u)) / PAGE, there = __builtin_wasm_memory_size(0);
    return pages <= there || __builtin_wasm_memory_grow(0, pages - there) != UINT32_MAX;
}

static const pe_policy *opened(void)
{
    if (policy.image == 0)
        __builtin_trap();
    return &policy;
}

/* Close what is open, and make room for an image. Returns its address, or 0 if it is too large. */
EXPORT("room") uint32_t room(uint32_t bytes)
{
    policy.image = 0;
    return bytes <= MAX_IMAGE && reach(image_address() + bytes) ? image_address() : 0;
}

/* Check the image that lies at `room`'s address. Returns PE_OK, the number of a check of pe_open, UNSEALED or NO_MEMORY. */
EXPORT("open") int32_t open(uint32_t bytes)
{
    policy.image = 0;
    if (bytes > MAX_IMAGE || !reach(image_address() + bytes))
        return NO_MEMORY;
    const uint8_t *image = (const uint8_t *)image_address();
    if (!pe_sealed(image, bytes))
        return UNSEALED;
    const int32_t check = pe_open(&policy, image, bytes);
    if (check != PE_OK)
        return check;
    const uint32_t scratch = aligned(image_address() + bytes);
    if (!reach(scratch + scratch_bytes())) {
        policy.image = 0;
        return NO_MEMORY;
    }
    policy.scratch = (uint8_t *)scratch;
    pe_reset(&policy);
    return PE_OK;
}

/* 0, or 1 + the first step of the image's vectors that differs. */
EXPORT("self_test") uint32_t self_test(void)
{
    opened();
    return pe_self_test(&policy);
}

EXPORT("reset") void reset(void)
{
    opened();
    pe_reset(&policy);
}

/* One base tick on the observation at `observation_at`; fills what lies at `raw_at` and `applied_at`. Returns the outcome. */
EXPORT("tick") uint32_t tick(uint32_t flags)
{
    opened();
    return pe_tick(&policy, flags, observation, raw, applied);
}

EXPORT("state_digest") uint32_t state_digest(void) { return pe_state_digest(opened()); }

/* SHA-256 of the contract, the operations or the shield (0, 1, 2): the digests that a board reports. Returns their address. */
EXPORT("section_digest") uint32_t section_digest(uint32_t section)
{
    const pe_image *i = opened()->image;
    const uint32_t at[] = {i->contract_at, i->program_at, i->shield_at};
    const uint32_t bytes[] = {i->contract_bytes, i->program_bytes, i->shield_bytes};
    if (section > 2)
        __builtin_trap();
    pe_sha256((const uint8_t *)i + at[section], bytes[section], digest);
    return (uint32_t)digest;
}

EXPORT("observation_at") uint32_t observation_at(void) { return (uint32_t)observation; }
EXPORT("raw_at") uint32_t raw_at(void) { return (uint32_t)raw; }
EXPORT("applied_at") uint32_t applied_at(void) { return (uint32_t)applied; }
EXPORT("observations") uint32_t observations(void) { return opened()->image->n; }
EXPORT("actions") uint32_t actions(void) { return opened()->image->m; }
EXPORT("period_us") uint32_t period_us(void) { return opened()->image->period_us; }
EXPORT("self_test_steps") uint32_t self_test_steps(void) { return opened()->image->steps; }
EXPORT("contract_at") uint32_t contract_at(void) { return image_address() + opened()->image->contract_at; }
EXPORT("contract_bytes") uint32_t contract_bytes(void) { return opened()->image->contract_bytes; }
