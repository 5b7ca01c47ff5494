/* pe_open: an image is believed in nothing that a check here does not confirm. */
#include <string.h>

#include "pe_conv.h"
#include "pe_engine.h"
#include "pe_gates.h"
#include "pe_ops.h"
#include "pe_sha256.h"
#include "pe_shield.h"

enum { ALIGNED = 3, MAX_SHIFT = 31, MIN_SHIFT = -30, MIN_GATE_SHIFT = -15, MAX_ROW = 65535, MAX_CELL_BITS = 12, MAX_CHANNEL_SHIFT = 30 };

/* What flows from one operation to the next, by the bytes of a value: nothing, int8, int16, observations; and the action. */
typedef enum { NOTHING, INT8, INT16, OBSERVATION = 4, ACTION } flow;

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

static int is_permutation(const uint16_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (order[i] >= count)
            return 0;
        for (uint32_t j = 0; j < i; j++)
            if (order[j] == order[i])
                return 0;
    }
    return 1;
}

static int is_input_valid(const pe_op *op)
{
    const int32_t *mean = (const void *)(op + 1);
    const int32_t *multiplier = mean + op->n_in;
    for (uint32_t i = 0; i < op->n_in; i++)
        if (mean[i] < -PE_LIMIT || mean[i] > PE_LIMIT)
            return 0;
    const int8_t *shift = (const void *)(multiplier + op->n_in);
    return multipliers_are_valid(multiplier, op->n_in) && shifts_are_valid(shift, op->n_in, MIN_SHIFT) &&
           (!(op->flags & PE_ORDERED) || is_permutation((const void *)(shift + pe_padded(op->n_in)), op->n_in));
}

/* Bias, multipliers unless there are none, shifts: what dense layers and convolutions begin with. */
static int are_rows_valid(const int32_t *bias, uint32_t rows, uint32_t flags)
{
    const int32_t *multiplier = bias + rows;
    if (flags & PE_SHIFT)
        return shifts_are_valid((const void *)multiplier, rows, 0);
    return multipliers_are_valid(multiplier, rows) && shifts_are_valid((const void *)(multiplier + rows), rows, 0);
}

static int are_gates_valid(const void *at, uint32_t rows, uint32_t columns)
{
    const pe_gates g = pe_gates_at(at, rows, columns);
    return multipliers_are_valid(g.multiplier, rows) && shifts_are_valid(g.shift, rows, MIN_GATE_SHIFT);
}

static int is_cell_valid(const pe_op *op)
{
    const uint32_t rows = (op->kind == PE_GRU ? 3u : 4u) * op->n_out;
    const uint8_t *at = (const void *)(op + 1);
    if (op->kind == PE_LSTM && *at > MAX_CELL_BITS)
        return 0;
    at += op->kind == PE_LSTM ? 4 : 0;
    return are_gates_valid(at, rows, op->n_in) && are_gates_valid(at + pe_gates_bytes(rows, op->n_in), rows, op->n_out);
}

/* Sizes agree with the widths and with each other. Nothing behind them has been looked at yet. */
static int are_sizes_valid(const pe_op *op)
{
    const pe_geometry *g = (const void *)(op + 1);
    const uint32_t channels = g->channels, deep = op->flags & PE_DEPTHWISE;
    if (g->spare || g->last || !g->height || !g->width || !channels || !g->filters || !g->out_height || !g->out_width)
        return 0;
    if (g->height > op->n_in || g->width > op->n_in || channels > op->n_in || (uint32_t)g->height * g->width > op->n_in ||
        (uint32_t)g->height * g->width * channels != op->n_in)
        return 0;
    if (g->filters > op->n_out || (uint32_t)g->out_height * g->out_width > op->n_out ||
        (uint32_t)g->out_height * g->out_width * g->filters != op->n_out)
        return 0;
    if (!g->down || !g->right || g->top >= g->kernel_height || g->left >= g->kernel_width || (deep && g->filters % channels))
        return 0;
    if ((uint32_t)g->kernel_height * g->kernel_width * (deep ? 1u : channels) > MAX_ROW)
        return 0;
    if ((int32_t)((g->out_height - 1u) * g->down) - g->top >= g->height || (int32_t)((g->out_width - 1u) * g->right) - g->left >= g->width)
        return 0;
    return op->flags & PE_X16 || (g->zero_in >= INT8_MIN && g->zero_in <= INT8_MAX);
}

static int are_choices_valid(const pe_op *op)
{
    const uint16_t *size = (const void *)(op + 1);
    uint32_t sum = 0;
    for (uint32_t j = 0; j < op->n_out; j++) {
        if (size[j] == 0)
            return 0;
        sum += size[j];
    }
    return sum == op->n_in;
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
    if (op->kind == PE_INPUT || op->kind == PE_DENSE || op->kind == PE_CONV) {
        if (op->low > op->high)
            return 0;
        if (to == INT8 && (op->low < INT8_MIN || op->high > INT8_MAX || op->zero < INT8_MIN || op->zero > INT8_MAX))
            return 0;
    }
    switch (op->kind) {
    case PE_INPUT:
        return is_input_valid(op);
    case PE_DENSE:
        return are_rows_valid((const void *)(op + 1), op->n_out, op->flags);
    case PE_CONV: {
        const pe_geometry *g = (const void *)(op + 1);
        return are_rows_valid((const void *)(g + 1), g->filters, op->flags);
    }
    case PE_GRU:
    case PE_LSTM:
        return is_cell_valid(op);
    case PE_AFFINE:
        return is_affine_valid(op);
    case PE_CHOICES:
        return are_choices_valid(op);
    default:
        return 1;
    }
}

/* The flags that a kind may have. */
static const uint8_t allowed[PE_KINDS] = {
    [PE_INPUT] = PE_ORDERED | PE_X16,
    [PE_DENSE] = PE_WIDE | PE_X16 | PE_INT4 | PE_SHIFT,
    [PE_CONV] = PE_X16 | PE_INT4 | PE_SHIFT | PE_DEPTHWISE,
    [PE_POOL] = PE_X16 | PE_MAX,
    [PE_GRU] = PE_X16,
    [PE_LSTM] = PE_X16,
};

/* Where an operation leads from `from`, or NOTHING if it may not stand there. */
static flow follow(const pe_op *op, flow from)
{
    const flow wide = op->flags & PE_X16 ? INT16 : INT8;
    if (op->kind >= PE_KINDS || pe_kernels[op->kind] == NULL || op->flags & ~allowed[op->kind] || (op->flags & PE_X16 && op->flags & PE_INT4))
        return NOTHING;
    switch (op->kind) {
    case PE_INPUT:
        return from == OBSERVATION ? wide : NOTHING;
    case PE_DENSE:
        if (op->flags & PE_WIDE)
            return from == INT8 && wide == INT8 ? INT16 : NOTHING;
        return from == wide ? wide : NOTHING;
    case PE_LOOKUP:
        return from == INT8 ? INT8 : NOTHING;
    case PE_LOOKUP16:
    case PE_TANH16:
        return from == INT16 ? INT16 : NOTHING;
    case PE_ARGMAX:
    case PE_AFFINE:
    case PE_CHOICES:
        return from == INT16 ? ACTION : NOTHING;
    default:
        return from == wide ? wide : NOTHING;
    }
}

static int are_widths_valid(const pe_image *image, const pe_op *op, uint32_t width, flow to)
{
    const uint32_t value = op->kind == PE_GRU ? 2u : (uint32_t)to; /* a gru collects its int16 state in the buffer */
    const uint32_t bytes = to == ACTION ? 0 : value * pe_padded(op->n_out);
    if (op->n_in != width || op->n_out == 0 || op->n_out > PE_MAX_WIDTH || bytes > image->buffer_bytes)
        return 0;
    if (op->kind == PE_POOL && op->n_in % op->n_out != 0)
        return 0;
    switch (op->kind) {
    case PE_DENSE:
    case PE_ARGMAX:
    case PE_CONV:
    case PE_POOL:
    case PE_GRU:
    case PE_LSTM:
    case PE_CHOICES:
        break;
    default:
        if (op->n_in != op->n_out)
            return 0;
    }
    return to != ACTION || op->n_out == image->m;
}

static uint32_t conv_bytes(const pe_op *op)
{
    const pe_geometry *g = (const void *)(op + 1);
    const uint32_t columns = (uint32_t)g->kernel_height * g->kernel_width * (op->flags & PE_DEPTHWISE ? 1u : g->channels);
    const uint32_t head = (uint32_t)(sizeof *op + sizeof *g), f = g->filters;
    return head + (op->flags & PE_SHIFT ? 4u : 8u) * f + pe_padded(f) + f * pe_stride(columns, op->flags);
}

uint32_t pe_op_bytes(const pe_op *op)
{
    const uint32_t i = op->n_in, o = op->n_out, head = sizeof *op, flags = op->flags;
    switch (op->kind) {
    case PE_INPUT:
        return head + 8 * i + pe_padded(i) + (flags & PE_ORDERED ? pe_padded(2 * i) : 0);
    case PE_DENSE:
        return head + (flags & PE_SHIFT ? 4u : 8u) * o + pe_padded(o) + o * pe_stride(i, flags);
    case PE_LOOKUP:
        return head + 256;
    case PE_LOOKUP16:
        return head + pe_padded(2 * 513);
    case PE_ARGMAX:
        return head + 4 * i * o;
    case PE_AFFINE:
        return head + 16 * i + pe_padded(i);
    case PE_CONV:
        return conv_bytes(op);
    case PE_GRU:
    case PE_LSTM: {
        const uint32_t rows = (op->kind == PE_GRU ? 3u : 4u) * o;
        return head + (op->kind == PE_LSTM ? 4u : 0) + pe_gates_bytes(rows, i) + pe_gates_bytes(rows, o);
    }
    case PE_CHOICES:
        return head + pe_padded(2 * o) + 4 * i;
    default: /* pool, tanh16 */
        return head;
    }
}

/* Whether an operation of a known kind ends within the `left` bytes from its head, which do hold a head. The bytes of every kind
 * fit 32 bits at the widths that are allowed, those of a convolution by its sizes: filters <= 4096, a row <= 65,535. */
static int is_whole(const pe_op *op, uint32_t left)
{
    if (op->kind == PE_CONV && (left < sizeof *op + sizeof(pe_geometry) || !are_sizes_valid(op)))
        return 0;
    return pe_op_bytes(op) <= left;
}

static int32_t check_program(pe_policy *p)
{
    const pe_image *image = p->image;
    const uint8_t *at = p->program;
    uint32_t left = image->program_bytes, width = image->n;
    flow here = OBSERVATION;
    for (uint32_t k = 0; k < image->operations; k++) {
        const pe_op *op = (const void *)at;
        if (left < sizeof *op)
            return PE_BAD_PROGRAM;
        const flow to = follow(op, here);
        if (to == NOTHING)
            return PE_BAD_ORDER;
        if (!are_widths_valid(image, op, width, to))
            return PE_BAD_WIDTH;
        if (!is_whole(op, left))
            return PE_BAD_PROGRAM;
        if (!are_values_valid(op, to))
            return PE_BAD_OPERATION;
        p->memory += pe_op_memory(op);
        if (p->memory > PE_MAX_MEMORY)
            return PE_BAD_WIDTH;
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
    const int32_t check = check_program(p);
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
