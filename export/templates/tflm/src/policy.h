/* @title@: what stands around the network that TFLite-Micro runs; plain C99, printed by puffer-edge, do not edit.
 *
@channels@
 *
 * rate @rate@ Hz, policy every @divider@ tick(s), fallback after @stale_limit@ tick(s) without an observation
 * shield: @stages@
 * contract @contract@
 */
#ifndef PE_TFLM_@NAME@_H
#define PE_TFLM_@NAME@_H

#include <stdint.h>

#include "pe_protocol.h" /* PE_STEP_RESET, PE_STEP_MISSED, PE_STEP_INVALID, and what an outcome says */

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_OBSERVATIONS @n@
#define @NAME@_ACTIONS @m@
#define @NAME@_INPUTS @inputs@ /* of the network, @bits@ bits each */
#define @NAME@_OUTPUTS @outputs@ /* of the network, 16 bits each */
#define @NAME@_PERIOD_US @period_us@u
#define @NAME@_TEST_STEPS @steps@u

typedef int@bits@_t @name@_value;

/* Observations in the contract's fixed point to the network's input, and the network's output to proposed actions. */
void @name@_input(const int32_t *observation, @name@_value *x);
void @name@_action(const int16_t *head, int32_t *raw);

/* The shield: v = x[n], raw[m], previous[m], fallback; out = applied[m], stage bits. */
void @name@_shield(const int32_t *v, int32_t *out);

/* The network: fills head[OUTPUTS] from x[INPUTS], after clearing its memory where `fresh` is not 0. Returns 0, or another
 * number when it failed; then the safe output is proposed. */
typedef int @name@_network(void *context, int fresh, const @name@_value *x, int16_t *head);

typedef struct {
    @name@_network *network;
    void *context;
    int32_t previous[@m@], held[@m@], last[@n@];
    uint32_t phase, stale;
    int fresh;
} @name@_policy;

/* State as after power-on, for this network. */
void @name@_reset(@name@_policy *p, @name@_network *network, void *context);

/* One base tick, every PERIOD_US: docs/tick.md of puffer-edge. `step` is PE_STEP_RESET | PE_STEP_MISSED | PE_STEP_INVALID;
 * `observation` is [n], not read when missed or invalid; `raw` and `applied` are [m], filled. Returns flags | reasons << 16. */
uint32_t @name@_tick(@name@_policy *p, uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied);

/* Replays the test vectors through the network. Returns 0, or 1 + the first step that differs: then do not drive anything with it.
 * Leaves the state reset. An older TFLite-Micro, or kernels of a chip's maker, may round otherwise: this is where it shows. */
uint32_t @name@_self_test(@name@_policy *p);

#ifdef __cplusplus
}
#endif

#endif
