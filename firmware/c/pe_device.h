/* The device's life: a policy is loaded, armed, ticks and is disarmed; what happened is counted. One per program. */
#ifndef PE_DEVICE_H
#define PE_DEVICE_H

#include <stdint.h>

#include "pe_engine.h"
#include "pe_protocol.h"
#include "pe_sha256.h"
#include "pe_store.h"

/* What `status` reports, in its order; all but the frames since the last arming. */
typedef struct {
    uint32_t ticks, stage[PE_MAX_STAGES], invalid, stale, missed, saturated, bad_frames, repeated_frames, deadline_misses, cycles_max;
} pe_counters;

typedef struct {
    uint8_t state; /* PE_STATE_… */
    uint8_t has_driver;
    uint8_t fault; /* why the policy may not be armed: an error code, or 0 */
    uint32_t fault_detail;
    uint32_t due_us; /* of the next free tick */
    pe_store store;
    pe_counters count;
    pe_policy policy; /* its image is null where there is none */
    int32_t safe[PE_MAX_ACTIONS];
    uint8_t digest[3][PE_SHA256_BYTES]; /* of contract, program, shield */
} pe_device_state;

extern pe_device_state pe_device;

/* Load the policy from the store and write its safe output. */
void pe_device_start(void);

/* Copy an image to RAM and make it the policy, disarmed, or failed with the reason noted. */
void pe_device_load(const uint8_t *image, uint32_t bytes);

/* The same with the image of the active slot, and its safe output. */
void pe_device_load_active(void);

int pe_device_is_armed(void);

/* Arm, in a mode PE_ARM_…; the caller has seen to it that nothing speaks against it. */
void pe_device_arm(uint32_t mode);

/* Back to the safe output, if armed. */
void pe_device_disarm(void);

/* A tick with an observation from elsewhere; no actuator is driven. Counted if armed. Returns the outcome. */
uint32_t pe_device_step(uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied);

/* Run the policy if it is armed for free running and its time has come. Call as often as possible while it returns 1;
 * it returns 0 when only a byte from the line can give it something to do. */
int pe_device_poll(void);

/* Write the safe output, whatever else is broken. For fault handlers. */
void pe_device_fail_safe(void);

#endif
