/* Frames, requests, installing. */
#include "pe_link.h"

#include <string.h>

#include "pe_board.h"
#include "pe_crc32.h"
#include "pe_device.h"
#include "pe_engine.h"
#include "pe_protocol.h"
#include "pe_sha256.h"
#include "pe_store.h"

enum { HEAD = 2, CRC = 4, FRAME = HEAD + PE_MAX_PAYLOAD + CRC };

/* The small fields come first: within reach of one instruction. */
static struct {
    uint32_t rx_bytes, tx_bytes;
    uint8_t rx_run;      /* bytes left of a COBS group */
    uint8_t rx_zero;     /* a zero follows the group, unless the frame ends */
    uint8_t rx_overflow; /* longer than any frame */
    uint8_t has_last;    /* tx answers the request below */
    uint8_t last[HEAD + CRC];
    uint32_t error_detail;
    void (*after)(void); /* to do once the reply has left */
    uint8_t rx[FRAME];   /* type, sequence, payload, CRC */
    uint8_t tx[FRAME];
} line;

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

/* The requests. Each fills the reply's payload and returns 0, or an error code that replaces it. */

static uint32_t fail(uint32_t code, uint32_t detail)
{
    line.error_detail = detail;
    return code;
}

static uint32_t hello(const uint8_t *in, uint32_t bytes)
{
    const pe_image *image = pe_device.policy.image;
    uint8_t id[8];
    (void)in, (void)bytes;
    pe_board_id(id);
    put16(PE_PROTOCOL_VERSION);
    put8(pe_board.kind);
    put8(PE_VERSION_MAJOR);
    put8(PE_VERSION_MINOR);
    put8(PE_VERSION_PATCH);
    put8(pe_device.state);
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
    const pe_image *image = pe_device.policy.image;
    (void)in, (void)bytes;
    if (image == NULL)
        return fail(PE_ERROR_NO_POLICY, 0);
    put32(image->bytes);
    put32(image->contract_bytes);
    put32(pe_device.store.sequence);
    put((const uint8_t *)image + image->bytes - PE_TRAILER, PE_TRAILER);
    put(pe_device.digest, sizeof pe_device.digest);
    return 0;
}

static uint32_t read_contract(const uint8_t *in, uint32_t bytes)
{
    const pe_image *image = pe_device.policy.image;
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
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    install.total = 0;
    if (get32(in) > PE_MAX_IMAGE)
        return fail(PE_ERROR_TOO_LARGE, PE_MAX_IMAGE);
    const uint32_t failed = pe_store_begin(&pe_device.store);
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
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (chunk == 0 || chunk > PE_INSTALL_CHUNK)
        return fail(PE_ERROR_BAD_LENGTH, 4 + PE_INSTALL_CHUNK);
    if (install.total == 0 || get32(in) != install.held)
        return fail(PE_ERROR_BAD_ORDER, install.total == 0 ? 0 : install.held);
    if (chunk > install.total - install.held)
        return fail(PE_ERROR_TOO_LARGE, install.total);
    const uint32_t failed = pe_store_write(&pe_device.store, install.held, in + 4, chunk);
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
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (total == 0 || install.held != total)
        return fail(PE_ERROR_BAD_ORDER, total == 0 ? 0 : install.held);
    install.total = 0;
    pe_sha256(pe_store_candidate(&pe_device.store), total, digest);
    if (memcmp(digest, install.digest, sizeof digest) != 0)
        return fail(PE_ERROR_BAD_DIGEST, 0);
    pe_device_load(pe_store_candidate(&pe_device.store), total);
    uint32_t code = pe_device.fault, detail = pe_device.fault_detail;
    if (code == 0) {
        detail = pe_store_commit(&pe_device.store, total, digest);
        code = detail ? PE_ERROR_FLASH : 0;
    }
    if (code) {
        pe_device_load_active();
        return fail(code, detail);
    }
    pe_device_fail_safe();
    put32(pe_device.store.sequence);
    return 0;
}

static uint32_t arm(const uint8_t *in, uint32_t bytes)
{
    uint32_t different = 0;
    (void)bytes;
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (pe_device.fault)
        return fail(pe_device.fault, pe_device.fault_detail);
    for (uint32_t k = 0; k < 3; k++)
        if (memcmp(in + 1 + k * PE_SHA256_BYTES, pe_device.digest[k], PE_SHA256_BYTES) != 0)
            different |= 1u << k;
    if (different)
        return fail(PE_ERROR_DIGEST_MISMATCH, different);
    if (in[0] > PE_ARM_FREE_RUN)
        return fail(PE_ERROR_NOT_HERE, in[0]);
    if (in[0] == PE_ARM_FREE_RUN && !pe_device.has_driver)
        return fail(PE_ERROR_NO_DRIVER, 0);
    install.total = 0;
    pe_device_arm(in[0]);
    return 0;
}

static uint32_t disarm(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    pe_device_disarm();
    return 0;
}

/* A tick with the observation from the line; no actuator is driven. */
static uint32_t run_step(const uint8_t *in, uint32_t bytes)
{
    const pe_policy *p = &pe_device.policy;
    int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
    const uint32_t step = in[0], n = step & PE_STEP_MISSED ? 0 : p->image->n;
    if (bytes != 4 + 4 * n)
        return fail(PE_ERROR_BAD_LENGTH, 4 + 4 * n);
    for (uint32_t i = 0; i < n; i++)
        observation[i] = (int32_t)get32(in + 4 + 4 * i);
    put32(pe_device_step(step, observation, raw, applied));
    put32(pe_state_digest(p));
    put32(p->cycles_policy);
    put32(p->cycles_shield);
    put(raw, 4u * p->image->m);
    put(applied, 4u * p->image->m);
    return 0;
}

static uint32_t step(const uint8_t *in, uint32_t bytes)
{
    if (pe_device.state == PE_STATE_FREE_RUN)
        return fail(PE_ERROR_ARMED, 0);
    if (pe_device.state != PE_STATE_LOCK_STEP)
        return fail(PE_ERROR_NOT_ARMED, 0);
    return run_step(in, bytes);
}

static uint32_t replay(const uint8_t *in, uint32_t bytes)
{
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (pe_device.policy.image == NULL)
        return fail(PE_ERROR_NO_POLICY, 0);
    return run_step(in, bytes);
}

static uint32_t status(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    put(&pe_device.count, sizeof pe_device.count);
    return 0;
}

static uint32_t service(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    if (pe_device_is_armed())
        return fail(PE_ERROR_ARMED, 0);
    if (!pe_board.has_service)
        return fail(PE_ERROR_NOT_HERE, 0);
    line.after = pe_board_service;
    return 0;
}

static uint32_t reset(const uint8_t *in, uint32_t bytes)
{
    (void)in, (void)bytes;
    pe_device_disarm(); /* else a tick that falls due while the reply leaves would drive the actuators again */
    pe_device_fail_safe();
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
        put32(line.error_detail);
    }
    put32(pe_crc32(0, line.tx, line.tx_bytes));
}

/* A whole frame lies in rx. */
static void frame(void)
{
    uint8_t this[HEAD + CRC];
    if (line.rx_bytes < HEAD + CRC || pe_crc32(0, line.rx, line.rx_bytes - CRC) != get32(line.rx + line.rx_bytes - CRC)) {
        pe_device.count.bad_frames++;
        return;
    }
    memcpy(this, line.rx, HEAD);
    memcpy(this + HEAD, line.rx + line.rx_bytes - CRC, CRC);
    if (line.has_last && this[0] != PE_HELLO && memcmp(this, line.last, sizeof this) == 0) {
        pe_device.count.repeated_frames++;
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
            pe_device.count.bad_frames++;
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
    memset(&install, 0, sizeof install);
    pe_device_start();
}
