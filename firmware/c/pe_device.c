/* Loading, arming, free running. */
#include "pe_device.h"

#include <string.h>

#include "pe_board.h"

enum { WATCH_PERIODS = 8, WATCH_LEAST_US = 20000, WATCH_MOST_US = 8000000 };

pe_device_state pe_device;

int pe_device_is_armed(void) { return pe_device.state == PE_STATE_LOCK_STEP || pe_device.state == PE_STATE_FREE_RUN; }

static void unload(uint32_t state, uint32_t fault, uint32_t detail)
{
    pe_device.state = (uint8_t)state;
    pe_device.fault = (uint8_t)fault;
    pe_device.fault_detail = detail;
}

static void digest_section(uint32_t which, uint32_t at, uint32_t bytes)
{
    pe_sha256((const uint8_t *)pe_device.policy.image + (bytes ? at : 0), bytes, pe_device.digest[which]);
}

void pe_device_load(const uint8_t *image, uint32_t bytes)
{
    uint8_t *arena = pe_board_arena();
    memcpy(arena, image, bytes);
    const int32_t check = pe_open(&pe_device.policy, arena, bytes);
    if (check != PE_OK) {
        unload(PE_STATE_FAILED, PE_ERROR_BAD_IMAGE, (uint32_t)check);
        return;
    }
    if (!pe_sealed(arena, bytes)) {
        pe_device.policy.image = NULL;
        unload(PE_STATE_FAILED, PE_ERROR_BAD_IMAGE, 0);
        return;
    }
    if (pe_scratch_bytes(&pe_device.policy) > PE_ARENA_BYTES - bytes) {
        pe_device.policy.image = NULL;
        unload(PE_STATE_FAILED, PE_ERROR_TOO_LARGE, PE_ARENA_BYTES - bytes);
        return;
    }
    const pe_image *i = pe_device.policy.image;
    pe_device.policy.scratch = arena + bytes;
    pe_reset(&pe_device.policy);
    pe_device.policy.clock = pe_board_cycles;
    for (uint32_t j = 0; j < i->m; j++)
        pe_device.safe[j] = pe_device.policy.action[j].safe;
    digest_section(0, i->contract_at, i->contract_bytes);
    digest_section(1, i->program_at, i->program_bytes);
    digest_section(2, i->shield_at, i->shield_bytes);
    const uint32_t different = pe_self_test(&pe_device.policy);
    if (different)
        unload(PE_STATE_FAILED, PE_ERROR_SELF_TEST, different - 1);
    else
        unload(PE_STATE_DISARMED, 0, 0);
}

void pe_device_load_active(void)
{
    pe_device.policy.image = NULL;
    unload(PE_STATE_EMPTY, PE_ERROR_NO_POLICY, 0);
    if (pe_device.store.active != PE_NO_SLOT) {
        uint32_t bytes;
        const uint8_t *image = pe_store_image(&pe_device.store, &bytes);
        pe_device_load(image, bytes);
    }
    pe_device_fail_safe();
}

void pe_device_start(void)
{
    memset(&pe_device, 0, sizeof pe_device);
    pe_device.has_driver = pe_board_open_driver() != 0;
    pe_store_open(&pe_device.store);
    pe_device_load_active();
}

void pe_device_fail_safe(void)
{
    if (pe_device.policy.image != NULL)
        pe_board_write(pe_device.safe);
}

static void count(uint32_t outcome)
{
    pe_counters *c = &pe_device.count;
    const uint32_t cycles = pe_device.policy.cycles_policy + pe_device.policy.cycles_shield;
    c->ticks++;
    for (uint32_t k = 0; k < PE_MAX_STAGES; k++)
        c->stage[k] += outcome >> (PE_REASON_SHIFT + k) & 1u;
    c->invalid += (outcome & PE_INVALID) != 0;
    c->stale += (outcome & PE_STALE) != 0;
    c->missed += (outcome & PE_MISSED) != 0;
    c->saturated += (outcome & PE_SATURATED) != 0;
    c->cycles_max = cycles > c->cycles_max ? cycles : c->cycles_max;
}

void pe_device_arm(uint32_t mode)
{
    const uint32_t bad = pe_device.count.bad_frames, repeated = pe_device.count.repeated_frames;
    memset(&pe_device.count, 0, sizeof pe_device.count);
    pe_device.count.bad_frames = bad;
    pe_device.count.repeated_frames = repeated;
    pe_reset(&pe_device.policy);
    pe_device_fail_safe();
    pe_device.due_us = pe_board_now_us();
    pe_device.state = mode == PE_ARM_FREE_RUN ? PE_STATE_FREE_RUN : PE_STATE_LOCK_STEP;
}

void pe_device_disarm(void)
{
    if (!pe_device_is_armed())
        return;
    pe_device_fail_safe();
    pe_board_watch(0);
    pe_reset(&pe_device.policy);
    pe_device.state = PE_STATE_DISARMED;
}

uint32_t pe_device_step(uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied)
{
    pe_board_start_cycles();
    const uint32_t outcome = pe_tick(&pe_device.policy, step, observation, raw, applied);
    if (pe_device_is_armed())
        count(outcome);
    return outcome;
}

static void watch(void)
{
    const uint32_t period = pe_device.policy.image->period_us;
    uint32_t timeout = period < WATCH_MOST_US / WATCH_PERIODS ? period * WATCH_PERIODS : WATCH_MOST_US;
    pe_board_watch(timeout > WATCH_LEAST_US ? timeout : WATCH_LEAST_US);
}

int pe_device_poll(void)
{
    if (pe_device.state != PE_STATE_FREE_RUN)
        return 0;
    watch();
    if ((int32_t)(pe_board_now_us() - pe_device.due_us) < 0)
        return 1;
    int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
    const uint32_t step = pe_board_read(observation) & (PE_STEP_MISSED | PE_STEP_INVALID);
    pe_board_start_cycles();
    const uint32_t outcome = pe_tick(&pe_device.policy, step, observation, raw, applied);
    pe_board_write(applied);
    count(outcome);
    pe_device.due_us += pe_device.policy.image->period_us;
    while ((int32_t)(pe_board_now_us() - pe_device.due_us) >= 0) { /* too late for the next tick: leave it out */
        pe_device.count.deadline_misses++;
        pe_device.due_us += pe_device.policy.image->period_us;
    }
    return 1;
}
