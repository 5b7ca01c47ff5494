/* Frames, requests, arming, installing, free running. */
#include "pe_link.h"

#include <string.h>

#include "pe_board.h"
#include "pe_crc32.h"
#include "pe_engine.h"
#include "pe_sha256.h"
#include "pe_store.h"

enum { HEAD = 2, CRC = 4, FRAME = HEAD + PE_MAX_PAYLOAD + CRC };
enum { WATCH_PERIODS = 8, WATCH_LEAST_US = 20000, WATCH_MOST_US = 8000000 };

/* What `status` reports, in its order; all but the frames since the last arming. */
typedef struct {
    uint32_t ticks, stage[PE_MAX_STAGES], invalid, stale, missed, saturated, bad_frames, repeated_frames, deadline_misses, cycles_max;
} counters;

static struct {
    uint8_t rx[FRAME]; /* type, sequence, payload, CRC */
    uint32_t rx_bytes;
    uint8_t rx_run;      /* bytes left of a COBS group */
    uint8_t rx_zero;     /* a zero follows the group, unless the frame ends */
    uint8_t rx_overflow; /* longer than any frame */
    uint8_t has_last;    /* tx answers the request below */
    uint8_t last[HEAD + CRC];
    uint8_t tx[FRAME];
    uint32_t tx_bytes;
    void (*after)(void); /* to do once the reply has left */
} line;

static struct {
    pe_policy policy;
    pe_store store;
    uint8_t state;
    uint8_t has_driver;
    uint8_t fault;         /* why the policy may not be armed: an error code, or 0 */
    uint32_t fault_detail;
    int32_t safe[PE_MAX_ACTIONS];
    uint8_t digest[3][PE_SHA256_BYTES]; /* of contract, program, shield */
    uint32_t due_us;                    /* of the next free tick */
    counters count;
} device;

static struct {
    uint32_t total, held; /* total is 0 while no install is open */
    uint8_t digest[PE_SHA256_BYTES];
} install;

static uint32_t get32(const uint8_t *at) { return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24; }

static void put8(uint32_t value) { line.tx[line.tx_bytes++] = (uint8_t)value; }

static void put16(uint32_t value)
{
    put8(value);
    put8(value >> 8);
}

static void put32(uint32_t value)
{
    put16(value);
    put16(value >> 16);
}

static void put(const void *data, uint32_t bytes)
{
    memcpy(line.tx + line.tx_bytes, data, bytes);
    line.tx_bytes += bytes;
}

static int is_armed(void) { return device.state == PE_STATE_LOCK_STEP || device.state == PE_STATE_FREE_RUN; }

/* The policy */

static void unload(uint32_t state, uint32_t fault, uint32_t detail)
{
    device.state = (uint8_t)state;
    device.fault = (uint8_t)fault;
    device.fault_detail = detail;
}

static void digest_section(uint32_t which, uint32_t at, uint32_t bytes)
{
    pe_sha256((const uint8_t *)device.policy.image + (bytes ? at : 0), bytes, device.digest[which]);
}

/* Copy an image to RAM and make it the device's policy, disarmed, or failed with the reason noted. */
static void load(const uint8_t *image, uint32_t bytes)
{
    uint8_t *arena = pe_board_arena();
    memcpy(arena, image, bytes);
    const int32_t check = pe_open(&device.policy, arena, bytes);
    if (check != PE_OK) {
        unload(PE_STATE_FAILED, PE_ERROR_BAD_IMAGE, (uint32_t)check);
        return;
    }
    if (!pe_sealed(arena, bytes)) {
        device.policy.image = NULL;
        unload(PE_STATE_FAILED, PE_ERROR_BAD_IMAGE, 0);
        return;
    }
    const pe_image *i = device.policy.image;
    device.policy.scratch = arena + bytes;
    device.policy.clock = pe_board_cycles;
    for (uint32_t j = 0; j < i->m; j++)
        device.safe[j] = device.policy.action[j].safe;
    digest_section(0, i->contract_at, i->contract_bytes);
    digest_section(1, i->program_at, i->program_bytes);
    digest_section(2, i->shield_at, i->shield_bytes);
    const uint32_t different = pe_self_test(&device.policy);
    if (different)
        unload(PE_STATE_FAILED, PE_ERROR_SELF_TEST, different - 1);
    else
        unload(PE_STATE_DISARMED, 0, 0);
}

static void load_active(void)
{
    device.policy.image = NULL;
    unload(PE_STATE_EMPTY, PE_ERROR_NO_POLICY, 0);
    if (device.store.active != PE_NO_SLOT) {
        uint32_t bytes;
        const uint8_t *image = pe_store_image(&device.store, &bytes);
        load(image, bytes);
    }
    pe_link_fail_safe();
}

void pe_link_fail_safe(void)
{
    if (device.policy.image != NULL)
        pe_board_write(device.safe);
}

static void count(uint32_t outcome)
{
    counters *c = &device.count;
    const uint32_t cycles = device.policy.cycles_policy + device.policy.cycles_shield;
    c->ticks++;
    for (uint32_t k = 0; k < PE_MAX_STAGES; k++)
        c->stage[k] += outcome >> (PE_REASON_SHIFT + k) & 1u;
    c->invalid += (outcome & PE_INVALID) != 0;
    c->stale += (outcome & PE_STALE) != 0;
    c->missed += (outcome & PE_MISSED) != 0;
    c->saturated += (outcome & PE_SATURATED) != 0;
    c->cycles_max = cycles > c->cycles_max ? cycles : c->cycles_max;
}

static void disarm_policy(void)
{
    pe_link_fail_safe();
    pe_board_watch(0);
    pe_reset(&device.policy);
    device.state = PE_STATE_DISARMED;
}

static void watch(void)
{
    const uint32_t period = device.policy.image->period_us;
    uint32_t timeout = period < WATCH_MOST_US / WATCH_PERIODS ? period * WATCH_PERIODS : WATCH_MOST_US;
    pe_board_watch(timeout > WATCH_LEAST_US ? timeout : WATCH_LEAST_US);
}

int pe_link_poll(void)
{
    if (device.state != PE_STATE_FREE_RUN)
        return 0;
    watch();
    if ((int32_t)(pe_board_now_us() - device.due_us) < 0)
        return 1;
    int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
    const uint32_t step = pe_board_read(observation) & (PE_STEP_MISSED | PE_STEP_INVALID);
    pe_board_start_cycles();
    const uint32_t outcome = pe_tick(&device.policy, step, observation, raw, applied);
    pe_board_write(applied);
    count(outcome);
    device.due_us += device.policy.image->period_us;
    while ((int32_t)(pe_board_now_us() - device.due_us) >= 0) { /* too late for the next tick: leave it out */
        device.count.deadline_misses++;
        device.due_us += device.policy.image->period_us;
    }
    return 1;
}

/* The requests. Each fills the reply's payload and returns 0, or an error code that replaces it. */

static uint32_t error_detail;

static uint32_t fail(uint32_t code, uint32_t detail)
{
    error_detail = detail;
    return code;
}

static uint32_t hello(const uint8_t *in, uint32_t bytes)
{
    const pe_image *image = device.policy.image;
    uint8_t id[8];
    (void)in, (void)bytes;
    pe_board_id(id);
    put16(PE_PROTOCOL_VERSION);
    put8(pe_board.kind);
    put8(PE_VERSION_MAJOR);
    put8(PE_VERSION_MINOR);
    put8(PE_VERSION_PATCH);
    put8(device.state);
    put8(image == NULL || image->shield_bytes == 0 ? PE_SHIELD_NONE : PE_SHIELD_BYTECODE);
    put32(pe_board.clock_hz);
    put16(PE_MAX_PAYLOAD);
    put16(image == NULL ? 0 : image->n);
    put16(image == NULL ? 0 : image->m);
    put(pe_board.target, sizeof pe_board.target);
    put(id, sizeof id);
    return 0;
}

static uint32_t contract(const uint8_t *in, uint32_t bytes)
{
    const pe_image *image = device.policy.image;
    (void)in, (void)bytes;
    if (image == NULL)
        return fail(PE_ERROR_NO_POLICY, 0);
    put32(image->bytes);
    put32(image->contract_bytes);
    put32(device.store.sequence);
    put((const uint8_t *)image + image->bytes - PE_TRAILER, PE_TRAILER);
    put(device.digest, sizeof device.digest);
    return 0;
}

static uint32_t read_contract(const uint8_t *in, uint32_t bytes)
{
    const pe_image *image = device.policy.image;
    const uint32_t offset = get32(in);
    (void)bytes;
    if (image == NULL)
        return fail(PE_ERROR_NO_POLICY, 0);
    const uint32_t left = offset < image->contract_bytes ? image->contract_bytes - offset : 0;
    if (left != 0)
        put((const uint8_t *)image + image->contract_at + offset, left < PE_INSTALL_CHUNK ? left : PE_INSTALL_CHUNK);
    return 0;
}

static uint32_t install_begin(const uint8_t *in, uint32_t bytes)
{
    (void)bytes;
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    install.total = 0;
    if (get32(in) > PE_MAX_IMAGE)
        return fail(PE_ERROR_TOO_LARGE, PE_MAX_IMAGE);
    const uint32_t failed = pe_store_begin(&device.store);
    if (failed)
        return fail(PE_ERROR_FLASH, failed);
    install.total = get32(in);
    install.held = 0;
    memcpy(install.digest, in + 4, sizeof install.digest);
    return 0;
}

static uint32_t install_data(const uint8_t *in, uint32_t bytes)
{
    const uint32_t chunk = bytes - 4;
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (chunk == 0 || chunk > PE_INSTALL_CHUNK)
        return fail(PE_ERROR_BAD_LENGTH, 4 + PE_INSTALL_CHUNK);
    if (install.total == 0 || get32(in) != install.held)
        return fail(PE_ERROR_BAD_ORDER, install.total == 0 ? 0 : install.held);
    if (chunk > install.total - install.held)
        return fail(PE_ERROR_TOO_LARGE, install.total);
    const uint32_t failed = pe_store_write(&device.store, install.held, in + 4, chunk);
    if (failed) {
        install.total = 0;
        return fail(PE_ERROR_FLASH, failed);
    }
    install.held += chunk;
    put32(install.held);
    return 0;
}

static uint32_t install_commit(const uint8_t *in, uint32_t bytes)
{
    uint8_t digest[PE_SHA256_BYTES];
    const uint32_t total = install.total;
    (void)in, (void)bytes;
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (total == 0 || install.held != total)
        return fail(PE_ERROR_BAD_ORDER, total == 0 ? 0 : install.held);
    install.total = 0;
    pe_sha256(pe_store_candidate(&device.store), total, digest);
    if (memcmp(digest, install.digest, sizeof digest) != 0)
        return fail(PE_ERROR_BAD_DIGEST, 0);
    load(pe_store_candidate(&device.store), total);
    uint32_t code = device.fault, detail = device.fault_detail;
    if (code == 0) {
        detail = pe_store_commit(&device.store, total, digest);
        code = detail ? PE_ERROR_FLASH : 0;
    }
    if (code) {
        load_active();
        return fail(code, detail);
    }
    pe_link_fail_safe();
    put32(device.store.sequence);
    return 0;
}

static uint32_t arm(const uint8_t *in, uint32_t bytes)
{
    uint32_t different = 0;
    (void)bytes;
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (device.fault)
        return fail(device.fault, device.fault_detail);
    for (uint32_t k = 0; k < 3; k++)
        if (memcmp(in + 1 + k * PE_SHA256_BYTES, device.digest[k], PE_SHA256_BYTES) != 0)
            different |= 1u << k;
    if (different)
        return fail(PE_ERROR_DIGEST_MISMATCH, different);
    if (in[0] > PE_ARM_FREE_RUN)
        return fail(PE_ERROR_NOT_HERE, in[0]);
    if (in[0] == PE_ARM_FREE_RUN && !device.has_driver)
        return fail(PE_ERROR_NO_DRIVER, 0);
    const uint32_t bad = device.count.bad_frames, repeated = device.count.repeated_frames;
    memset(&device.count, 0, sizeof device.count);
    device.count.bad_frames = bad;
    device.count.repeated_frames = repeated;
    install.total = 0;
    pe_reset(&device.policy);
    pe_link_fail_safe();
    device.due_us = pe_board_now_us();
    device.state = in[0] == PE_ARM_FREE_RUN ? PE_STATE_FREE_RUN : PE_STATE_LOCK_STEP;
    return 0;
}

static uint32_t disarm(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    if (is_armed())
        disarm_policy();
    return 0;
}

/* A tick with the observation from the line; no actuator is driven. */
static uint32_t run_step(const uint8_t *in, uint32_t bytes)
{
    pe_policy *p = &device.policy;
    int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
    const uint32_t step = in[0], n = step & PE_STEP_MISSED ? 0 : p->image->n;
    if (bytes != 4 + 4 * n)
        return fail(PE_ERROR_BAD_LENGTH, 4 + 4 * n);
    for (uint32_t i = 0; i < n; i++)
        observation[i] = (int32_t)get32(in + 4 + 4 * i);
    pe_board_start_cycles();
    const uint32_t outcome = pe_tick(p, step, observation, raw, applied);
    if (is_armed())
        count(outcome);
    put32(outcome);
    put32(pe_state_digest(p));
    put32(p->cycles_policy);
    put32(p->cycles_shield);
    put(raw, 4u * p->image->m);
    put(applied, 4u * p->image->m);
    return 0;
}

static uint32_t step(const uint8_t *in, uint32_t bytes)
{
    if (device.state == PE_STATE_FREE_RUN)
        return fail(PE_ERROR_ARMED, 0);
    if (device.state != PE_STATE_LOCK_STEP)
        return fail(PE_ERROR_NOT_ARMED, 0);
    return run_step(in, bytes);
}

static uint32_t replay(const uint8_t *in, uint32_t bytes)
{
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (device.policy.image == NULL)
        return fail(PE_ERROR_NO_POLICY, 0);
    return run_step(in, bytes);
}

static uint32_t status(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    put(&device.count, sizeof device.count);
    return 0;
}

static uint32_t service(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    if (is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (!pe_board.has_service)
        return fail(PE_ERROR_NOT_HERE, 0);
    line.after = pe_board_service;
    return 0;
}

static uint32_t reset(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    pe_link_fail_safe();
    line.after = pe_board_reset;
    return 0;
}

typedef struct {
    uint32_t (*handle)(const uint8_t *in, uint32_t bytes);
    uint16_t bytes;   /* of the payload */
    uint8_t is_least; /* more may follow */
} request;

static const request requests[] = {
    [PE_HELLO] = {hello, PE_HELLO_BYTES, 0},
    [PE_CONTRACT] = {contract, PE_CONTRACT_BYTES, 0},
    [PE_READ_CONTRACT] = {read_contract, PE_READ_CONTRACT_BYTES, 0},
    [PE_INSTALL_BEGIN] = {install_begin, PE_INSTALL_BEGIN_BYTES, 0},
    [PE_INSTALL_DATA] = {install_data, PE_INSTALL_DATA_BYTES, 1},
    [PE_INSTALL_COMMIT] = {install_commit, PE_INSTALL_COMMIT_BYTES, 0},
    [PE_ARM] = {arm, PE_ARM_BYTES, 0},
    [PE_DISARM] = {disarm, PE_DISARM_BYTES, 0},
    [PE_STEP] = {step, PE_STEP_BYTES, 1},
    [PE_REPLAY] = {replay, PE_REPLAY_BYTES, 1},
    [PE_STATUS] = {status, PE_STATUS_BYTES, 0},
    [PE_SERVICE] = {service, PE_SERVICE_BYTES, 0},
    [PE_RESET] = {reset, PE_RESET_BYTES, 0},
};

static uint32_t handle(uint32_t type, const uint8_t *in, uint32_t bytes)
{
    if (type >= sizeof requests / sizeof *requests || requests[type].handle == NULL)
        return fail(PE_ERROR_UNKNOWN_MESSAGE, type);
    const request *r = &requests[type];
    if (bytes < r->bytes || (bytes > r->bytes && !r->is_least))
        return fail(PE_ERROR_BAD_LENGTH, r->bytes);
    return r->handle(in, bytes);
}

/* Frames */

/* COBS, group by group: a length byte stands for the zero that ended the group before it. */
static void send(void)
{
    uint32_t at = 0, run;
    do {
        for (run = 0; run < 254 && at + run < line.tx_bytes && line.tx[at + run] != 0;)
            run++;
        pe_board_putc((uint8_t)(run + 1));
        for (uint32_t end = at + run; at < end; at++)
            pe_board_putc(line.tx[at]);
        at += run < 254; /* the zero, or one beyond the end */
    } while (at <= line.tx_bytes && !(run == 254 && at == line.tx_bytes));
    pe_board_putc(0);
}

static void answer(void)
{
    const uint32_t type = line.rx[0];
    line.tx_bytes = 0;
    put8(type | PE_REPLY);
    put8(line.rx[1]);
    const uint32_t code = handle(type, line.rx + HEAD, line.rx_bytes - HEAD - CRC);
    if (code) {
        line.tx[0] = PE_ERROR;
        line.tx_bytes = HEAD;
        put8(code);
        put8(type);
        put16(0);
        put32(error_detail);
    }
    put32(pe_crc32(0, line.tx, line.tx_bytes));
}

/* A whole frame lies in rx. */
static void frame(void)
{
    uint8_t this[HEAD + CRC];
    if (line.rx_bytes < HEAD + CRC || pe_crc32(0, line.rx, line.rx_bytes - CRC) != get32(line.rx + line.rx_bytes - CRC)) {
        device.count.bad_frames++;
        return;
    }
    memcpy(this, line.rx, HEAD);
    memcpy(this + HEAD, line.rx + line.rx_bytes - CRC, CRC);
    if (line.has_last && this[0] != PE_HELLO && memcmp(this, line.last, sizeof this) == 0) {
        device.count.repeated_frames++;
    } else {
        memcpy(line.last, this, sizeof this);
        line.has_last = 1;
        answer();
    }
    send();
    if (line.after != NULL) {
        void (*after)(void) = line.after;
        line.after = NULL;
        pe_board_flush();
        after();
    }
}

static void append(uint8_t byte)
{
    if (line.rx_bytes < FRAME)
        line.rx[line.rx_bytes++] = byte;
    else
        line.rx_overflow = 1;
}

void pe_link_byte(uint8_t byte)
{
    if (byte == 0) {
        if (line.rx_run != 0 || line.rx_overflow)
            device.count.bad_frames++;
        else if (line.rx_bytes != 0)
            frame();
        line.rx_bytes = 0;
        line.rx_run = 0;
        line.rx_zero = 0;
        line.rx_overflow = 0;
    } else if (line.rx_run == 0) {
        if (line.rx_zero)
            append(0);
        line.rx_run = (uint8_t)(byte - 1);
        line.rx_zero = byte != 255;
    } else {
        append(byte);
        line.rx_run--;
    }
}

void pe_link_start(void)
{
    memset(&line, 0, sizeof line);
    memset(&device, 0, sizeof device);
    memset(&install, 0, sizeof install);
    device.has_driver = pe_board_open_driver() != 0;
    pe_store_open(&device.store);
    load_active();
}
