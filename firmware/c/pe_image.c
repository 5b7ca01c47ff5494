/* pe_open: an image is believed in nothing that a check here does not confirm. */
#include <string.h>

#include "pe_engine.h"
#include "pe_ops.h"
#include "pe_sha256.h"
#include "pe_shield.h"

enum { ALIGNED = 3, MAX_SHIFT = 31, MIN_SHIFT = -30, MAX_CHANNEL_SHIFT = 30 };

/* What flows from one operation to the next: observations, int8, int16 of the head, int16 after its table, the action. */
typedef enum { OBSERVATION, INT8, HEAD, TABLE, ACTION } flow;

static int is_inside(uint32_t at, uint32_t bytes, uint32_t end)
{
    return (at & ALIGNED) == 0 && at >= sizeof(pe_image) && at <= end && bytes <= end - at;
}

static int multipliers_are_valid(const int32_t *multiplier, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (multiplier[i] != 0 && multiplier[i] < 1 << 30)
            return 0;
    return 1;
}

static int shifts_are_valid(const int8_t *shift, uint32_t count, int32_t low)
{
    for (uint32_t i = 0; i < count; i++)
        if (shift[i] < low || shift[i] > MAX_SHIFT)
            return 0;
    return 1;
}

static int is_input_valid(const pe_op *op)
{
    const int32_t *mean = (const void *)(op + 1);
    const int32_t *multiplier = mean + op->n_in;
    for (uint32_t i = 0; i < op->n_in; i++)
        if (mean[i] < -PE_LIMIT || mean[i] > PE_LIMIT)
            return 0;
    return multipliers_are_valid(multiplier, op->n_in) && shifts_are_valid((const void *)(multiplier + op->n_in), op->n_in, MIN_SHIFT);
}

static int is_dense_valid(const pe_op *op)
{
    const int32_t *multiplier = (const int32_t *)(const void *)(op + 1) + op->n_out;
    return multipliers_are_valid(multiplier, op->n_out) && shifts_are_valid((const void *)(multiplier + op->n_out), op->n_out, 0);
}

static int is_affine_valid(const pe_op *op)
{
    const uint32_t m = op->n_in;
    const int32_t *multiplier = (const void *)(op + 1);
    const int8_t *shift = (const void *)(multiplier + m);
    const int32_t *low = (const int32_t *)(const void *)(shift + pe_padded(m)) + m, *high = low + m;
    for (uint32_t j = 0; j < m; j++)
        if (low[j] > high[j])
            return 0;
    return multipliers_are_valid(multiplier, m) && shifts_are_valid(shift, m, MIN_SHIFT);
}

static int are_values_valid(const pe_op *op, flow to)
{
    if (op->flags != (to == HEAD ? PE_DENSE_HEAD : 0))
        return 0;
    if (to == INT8 && op->kind != PE_LOOKUP && (op->low < -128 || op->high > 127))
        return 0;
    if ((op->kind == PE_INPUT || op->kind == PE_DENSE) && op->low > op->high)
        return 0;
    switch (op->kind) {
    case PE_INPUT:
        return is_input_valid(op);
    case PE_DENSE:
        return is_dense_valid(op);
    case PE_AFFINE:
        return is_affine_valid(op);
    default:
        return 1;
    }
}

/* Where an operation leads from `from`, or OBSERVATION if it may not stand there. */
static flow follow(const pe_op *op, flow from)
{
    switch (op->kind) {
    case PE_INPUT:
        return from == OBSERVATION ? INT8 : OBSERVATION;
    case PE_DENSE:
        return from != INT8 ? OBSERVATION : op->flags & PE_DENSE_HEAD ? HEAD : INT8;
    case PE_LOOKUP:
        return from == INT8 ? INT8 : OBSERVATION;
    case PE_LOOKUP16:
        return from == HEAD ? TABLE : OBSERVATION;
    case PE_ARGMAX:
    case PE_AFFINE:
        return from == HEAD || from == TABLE ? ACTION : OBSERVATION;
    default:
        return OBSERVATION;
    }
}

static int are_widths_valid(const pe_image *image, const pe_op *op, uint32_t width, flow to)
{
    const uint32_t bytes = to == ACTION ? 0 : to == INT8 ? pe_padded(op->n_out) : 2u * op->n_out;
    if (op->n_in != width || op->n_out == 0 || op->n_out > PE_MAX_WIDTH || bytes > image->buffer_bytes)
        return 0;
    if (op->kind != PE_DENSE && op->kind != PE_ARGMAX && op->n_in != op->n_out)
        return 0;
    return to != ACTION || op->n_out == image->m;
}

uint32_t pe_op_bytes(const pe_op *op)
{
    const uint32_t i = op->n_in, o = op->n_out, head = sizeof *op;
    switch (op->kind) {
    case PE_INPUT:
        return head + 8 * i + pe_padded(i);
    case PE_DENSE:
        return head + 8 * o + pe_padded(o) + o * pe_padded(i);
    case PE_LOOKUP:
        return head + 256;
    case PE_LOOKUP16:
        return head + pe_padded(2 * 513);
    case PE_ARGMAX:
        return head + 4 * i * o;
    case PE_AFFINE:
        return head + 16 * i + pe_padded(i);
    default:
        return 0;
    }
}

static int32_t check_program(const pe_image *image)
{
    const uint8_t *at = (const uint8_t *)image + image->program_at;
    uint32_t left = image->program_bytes, width = image->n;
    flow here = OBSERVATION;
    for (uint32_t k = 0; k < image->operations; k++) {
        const pe_op *op = (const void *)at;
        if (left < sizeof *op)
            return PE_BAD_PROGRAM;
        const flow to = follow(op, here);
        if (to == OBSERVATION)
            return PE_BAD_ORDER;
        if (!are_widths_valid(image, op, width, to))
            return PE_BAD_WIDTH;
        if (pe_op_bytes(op) > left)
            return PE_BAD_PROGRAM;
        if (!are_values_valid(op, to))
            return PE_BAD_OPERATION;
        left -= pe_op_bytes(op);
        at += pe_op_bytes(op);
        width = op->n_out;
        here = to;
    }
    return here != ACTION ? PE_BAD_ORDER : left != 0 ? PE_BAD_PROGRAM : PE_OK;
}

static int are_channels_valid(const pe_policy *p)
{
    for (uint32_t i = 0; i < p->image->n; i++) {
        const pe_observation *c = &p->observation[i];
        if (c->low < -PE_LIMIT || c->low > c->high || c->high > PE_LIMIT || c->shift > MAX_CHANNEL_SHIFT)
            return 0;
    }
    for (uint32_t j = 0; j < p->image->m; j++) {
        const pe_action *c = &p->action[j];
        if (c->low > c->safe || c->safe > c->high || c->low > c->initial || c->initial > c->high)
            return 0;
    }
    return 1;
}

static int are_counts_valid(const pe_image *i)
{
    return i->n >= 1 && i->n <= PE_MAX_OBSERVATIONS && i->m >= 1 && i->m <= PE_MAX_ACTIONS && i->operations >= 1 &&
           i->operations <= PE_MAX_OPERATIONS && i->divider >= 1 && i->period_us >= 1 && i->period_us <= PE_LIMIT &&
           i->buffer_bytes % 8 == 0 && i->buffer_bytes <= 2 * PE_MAX_WIDTH;
}

static int are_sections_valid(const pe_image *i)
{
    const uint32_t end = i->bytes - PE_TRAILER;
    const uint32_t channels = i->n * (uint32_t)sizeof(pe_observation) + i->m * (uint32_t)sizeof(pe_action);
    const uint32_t step = 4u * (3u + i->n + 2u * i->m);
    return is_inside(i->contract_at, i->contract_bytes, end) && is_inside(i->channels_at, channels, end) &&
           is_inside(i->program_at, i->program_bytes, end) &&
           (i->shield_bytes == 0 || is_inside(i->shield_at, i->shield_bytes, end)) &&
           i->steps <= i->bytes / step /* so that the product fits */ && is_inside(i->vectors_at, i->steps * step, end);
}

static int32_t check_all(pe_policy *p, const uint8_t *image, uint32_t bytes)
{
    const pe_image *i = (const void *)image;
    if (((uintptr_t)image & ALIGNED) != 0 || (bytes & ALIGNED) != 0 || bytes < sizeof *i + PE_TRAILER)
        return PE_BAD_PLACE;
    if (memcmp(i->magic, "PEP1", 4) != 0 || i->version != 1 || i->header_bytes != sizeof *i)
        return PE_BAD_MAGIC;
    if (i->bytes != bytes)
        return PE_BAD_TOTAL;
    if (!are_counts_valid(i))
        return PE_BAD_COUNTS;
    if (!are_sections_valid(i))
        return PE_BAD_SECTION;
    p->image = i;
    p->observation = (const void *)(image + i->channels_at);
    p->action = (const void *)(p->observation + i->n);
    p->program = image + i->program_at;
    if (!are_channels_valid(p))
        return PE_BAD_CHANNEL;
    const int32_t check = check_program(i);
    if (check != PE_OK || i->shield_bytes == 0)
        return check;
    return pe_shield_check(image + i->shield_at, i->shield_bytes, i->n, i->m);
}

int32_t pe_open(pe_policy *p, const uint8_t *image, uint32_t bytes)
{
    memset(p, 0, sizeof *p);
    const int32_t check = check_all(p, image, bytes);
    if (check == PE_OK)
        pe_reset(p);
    else
        p->image = NULL;
    return check;
}

int pe_sealed(const uint8_t *image, uint32_t bytes)
{
    uint8_t digest[PE_SHA256_BYTES];
    if (bytes < PE_TRAILER)
        return 0;
    pe_sha256(image, bytes - PE_TRAILER, digest);
    return memcmp(digest, image + bytes - PE_TRAILER, sizeof digest) == 0;
}
