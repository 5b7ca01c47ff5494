/* conv: a convolution over an image with channels last, dense or depthwise; what lies outside the image is its zero point. */
#include "pe_conv.h"

#include <stddef.h>

#include "pe_dot.h"
#include "pe_rows.h"

/* A window on the image. Of each row of its taps that lies in the image, `count` weights do so: from `first`, beside values from
 * `at`. The next row is `taps` weights and `pitch` values further. */
typedef struct {
    const pe_geometry *g;
    const uint8_t *in;
    uint32_t flags, taps, pitch;
    uint32_t first_row, end_row, first, count, at;
} window;

/* Two filters, or one twice; a depthwise one sees one channel. `a` are their sums. */
typedef struct {
    uint32_t count, channel[2], a[2];
    const uint8_t *weight[2];
} pair;

static uint32_t first_inside(int32_t at) { return at < 0 ? (uint32_t)-at : 0; }

static uint32_t end_inside(int32_t at, uint32_t taps, uint32_t size)
{
    const int32_t left = (int32_t)size - at;
    return left < (int32_t)taps ? (uint32_t)left : taps;
}

/* Where position (i, j) looks; some of it lies in the image (pe_image.c). */
static window place(const pe_op *op, const void *in, uint32_t i, uint32_t j)
{
    const pe_geometry *g = (const void *)(op + 1);
    const uint32_t each = op->flags & PE_DEPTHWISE ? 1u : g->channels; /* weights of a tap */
    const int32_t row = (int32_t)(i * g->down) - g->top, column = (int32_t)(j * g->right) - g->left;
    const uint32_t first_row = first_inside(row), first_column = first_inside(column);
    const uint32_t pixel = (uint32_t)(row + (int32_t)first_row) * g->width + (uint32_t)(column + (int32_t)first_column);
    const window w = {.g = g,
                      .in = in,
                      .flags = op->flags,
                      .taps = g->kernel_width * each,
                      .pitch = (uint32_t)g->width * g->channels,
                      .first_row = first_row,
                      .end_row = end_inside(row, g->kernel_height, g->height),
                      .first = first_column * each,
                      .count = (end_inside(column, g->kernel_width, g->width) - first_column) * each,
                      .at = pixel * g->channels};
    return w;
}

/* Of both filters, weights `k` up to `end`. */
static void add_weights(const window *w, const pair *p, uint32_t k, uint32_t end, int32_t *sums)
{
    if (w->flags & PE_INT4)
        for (; k < end; k++) {
            sums[0] += pe_weight4(p->weight[0], k);
            sums[1] += pe_weight4(p->weight[1], k);
        }
    else
        for (; k < end; k++) {
            sums[0] += (int8_t)p->weight[0][k];
            sums[1] += (int8_t)p->weight[1][k];
        }
}

/* The part of the window beside the image. At most 65,535 weights: their sum fits, its product wraps. */
static void add_outside(const window *w, pair *p)
{
    const uint32_t zero_in = (uint32_t)(int32_t)w->g->zero_in;
    int32_t sums[2] = {0, 0};
    uint32_t k = 0;
    for (uint32_t u = 0; u < w->g->kernel_height; u++, k += w->taps) {
        const uint32_t whole = u < w->first_row || u >= w->end_row;
        add_weights(w, p, k, k + (whole ? w->taps : w->first), sums);
        if (!whole)
            add_weights(w, p, k + w->first + w->count, k + w->taps, sums);
    }
    p->a[0] += (uint32_t)sums[0] * zero_in;
    p->a[1] += (uint32_t)sums[1] * zero_in;
}

/* The part in the image: values lie in a row as the weights do. */
static void inside(const window *w, pair *p)
{
    const uint32_t x16 = w->flags & PE_X16, int4 = w->flags & PE_INT4;
    pe_dot *const dot = x16 ? pe_dot_16 : int4 ? pe_dot_4 : pe_dot_8;
    const uint8_t *x = w->in + (x16 ? 2 * w->at : w->at);
    uint32_t k = w->first_row * w->taps + w->first, a0 = 0, a1 = 0;
    for (uint32_t u = w->first_row; u < w->end_row; u++, k += w->taps, x += x16 ? 2 * w->pitch : w->pitch) {
        const uint32_t half = int4 ? k & 1u : 0, from = int4 ? (k + 1) / 2 : k;
        if (half) { /* it begins in the middle of a byte */
            const int32_t value = *(const int8_t *)x;
            a0 += (uint32_t)(value * pe_weight4(p->weight[0], k));
            a1 += (uint32_t)(value * pe_weight4(p->weight[1], k));
        }
        const uint64_t sums = dot(x + half, p->weight[0] + from, p->weight[1] + from, w->count - half);
        a0 += (uint32_t)sums;
        a1 += (uint32_t)(sums >> 32);
    }
    p->a[0] = a0;
    p->a[1] = a1;
}

/* The same for filter f of depthwise ones: every value is its channel's, a pixel further than the one before. */
static uint32_t inside_channel(const window *w, const pair *p, uint32_t f)
{
    const uint32_t channels = w->g->channels;
    const uint8_t *weight = p->weight[f];
    const int8_t *x8 = (const int8_t *)w->in;
    const int16_t *x16 = (const void *)w->in;
    uint32_t row = w->at + p->channel[f], from = w->first_row * w->taps + w->first, a = 0;
    for (uint32_t u = w->first_row; u < w->end_row; u++, from += w->taps, row += w->pitch) {
        uint32_t at = row, k = from;
        const uint32_t end = from + w->count;
        if (w->flags & PE_X16)
            for (; k < end; k++, at += channels)
                a += (uint32_t)(x16[at] * (int8_t)weight[k]);
        else if (w->flags & PE_INT4)
            for (; k < end; k++, at += channels)
                a += (uint32_t)(x8[at] * pe_weight4(weight, k));
        else
            for (; k < end; k++, at += channels)
                a += (uint32_t)(x8[at] * (int8_t)weight[k]);
    }
    return a;
}

static void convolve(const window *w, pair *p)
{
    if (w->flags & PE_DEPTHWISE)
        for (uint32_t f = 0; f < p->count; f++)
            p->a[f] = inside_channel(w, p, f);
    else
        inside(w, p);
    if (w->g->zero_in && (w->count < w->taps || w->end_row - w->first_row < w->g->kernel_height))
        add_outside(w, p);
}

void pe_conv(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const pe_geometry *g = (const void *)(op + 1);
    const uint32_t filters = g->filters, flags = op->flags, deep = flags & PE_DEPTHWISE;
    const uint32_t stride = pe_stride(g->kernel_height * g->kernel_width * (deep ? 1u : g->channels), flags);
    const uint32_t each = deep ? filters / g->channels : 0; /* filters of a channel */
    const pe_rows rows = pe_rows_at(op, g + 1, filters, flags);
    uint8_t *to = out;
    for (uint32_t i = 0; i < g->out_height; i++)
        for (uint32_t j = 0; j < g->out_width; j++, to += flags & PE_X16 ? 2 * filters : filters) {
            const window w = place(op, in, i, j);
            pair p = {0, {0, 0}, {0, 0}, {NULL, NULL}};
            for (uint32_t f = 0; f < filters; f++) {
                if (f % 2 == 0) { /* an odd last filter is its own neighbour */
                    p.count = f + 1 < filters ? 2 : 1;
                    p.weight[0] = rows.weight + f * stride;
                    p.weight[1] = p.weight[0] + (p.count - 1) * stride;
                    for (uint32_t k = 0; k < 2 && deep; k++)
                        p.channel[k] = each == 1 ? f + k : (f + k) / each;
                    convolve(&w, &p);
                }
                pe_row(&rows, f, p.a[f % 2], flags, to);
            }
        }
}
