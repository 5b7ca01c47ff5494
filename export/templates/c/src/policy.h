/* @title@: a policy behind its shield, printed by puffer-edge; do not edit.
 *
@channels@
 *
 * rate @rate@ Hz, policy every @divider@ tick(s), fallback after @stale_limit@ tick(s) without an observation
 * shield: @stages@
 * contract @contract@
 */
#ifndef POLICY_@NAME@_H
#define POLICY_@NAME@_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_OBSERVATIONS @n@
#define @NAME@_ACTIONS @m@
#define @NAME@_PERIOD_US @period_us@u
#define @NAME@_IMAGE_BYTES @image_bytes@u
#define @NAME@_SCRATCH_BYTES @scratch_bytes@u

enum { /* step: what came with this tick */
    @NAME@_STEP_RESET = @step_reset@,
    @NAME@_STEP_MISSED = @step_missed@,  /* no observation */
    @NAME@_STEP_INVALID = @step_invalid@ /* one that cannot be trusted: NaN, a driver's error */
};
enum { /* outcome: flags, and from bit @NAME@_REASON_SHIFT on why the shield acted, a bit a stage */
    @NAME@_SATURATED = @saturated@,
    @NAME@_MISSED = @missed@,
    @NAME@_INVALID = @invalid@,
    @NAME@_STALE = @stale@,
    @NAME@_POLICY_RAN = @policy_ran@,
    @NAME@_REASON_SHIFT = @reason_shift@
};

/* Once, and again for a reset of everything: check the image and replay its test vectors. Returns 0; minus the number of
 * a check of pe_engine.h that the image fails; or 1 + the first vector that differs on this machine. */
int32_t @name@_start(void);

/* At every base tick: `observation` is not read when missed or invalid; `raw` is what the policy proposes, `applied` what
 * may reach the actuators. Returns the outcome. A policy that did not start gives the safe output. */
uint32_t @name@_tick(uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied);

/* CRC-32 of the state after the last tick. */
uint32_t @name@_state(void);

/* The policy image (docs/image.md of puffer-edge), 8-aligned. */
extern const uint8_t @name@_image[@NAME@_IMAGE_BYTES];

/* The shield: v = x[n], raw[m], previous[m], fallback; out = applied[m], stage bits. */
void @name@_shield(const int32_t *v, int32_t *out);

#ifdef __cplusplus
}
#endif

#endif
