/* conv: a convolution over an image with channels last, dense or depthwise; what lies outside the image is its zero point. */
#include "pe_conv.h"

#include <stddef.h>

#include "pe_dot.h"
#include "pe_rows.h"

/* A window on the image: of its rows and columns of taps, those from `first` up to `end` lie in it. */
typedef struct {
    const pe_geometry *g;
    const uint8_t *in;
    uint32_t flags;
    int32_t row, column; /* of the image, where the window begins */
    uint32_t first_row, end_row, first_column, end_column;
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

static int32_t weight_at(const uint8_t *w, uint32_t flags, uint32_t k) { return flags & PE_INT4 ? pe_weight4(w, k) : (int8_t)w[k]; }

/* Weights k up to `end` lie beside the zero point. */
static void outside(const window *w, uint32_t k, uint32_t end, pair *p)
{
    int32_t b0 = 0, b1 = 0; /* at most 65,535 weights: their sum fits, the product wraps */
    for (; k < end; k++) {
        b0 += weight_at(p->weight[0], w->flags, k);
        b1 += weight_at(p->weight[1], w->flags, k);
    }
    const uint32_t zero_in = (uint32_t)(int32_t)w->g->zero_in;
    p->a[0] += (uint32_t)b0 * zero_in;
    p->a[1] += (uint32_t)b1 * zero_in;
}

/* Weights k up to `end` lie beside as many values in a row, from `at`. */
static void inside(const window *w, uint32_t at, uint32_t k, uint32_t end, pair *p)
{
    const uint32_t x16 = w->flags & PE_X16, int4 = w->flags & PE_INT4;
    if (int4 && k & 1u) { /* the second half of a byte */
        const int32_t x = ((const int8_t *)w->in)[at++];
        p->a[0] += (uint32_t)(x * pe_weight4(p->weight[0], k));
        p->a[1] += (uint32_t)(x * pe_weight4(p->weight[1], k));
        k++;
    }
    pe_dot *const dot = x16 ? pe_dot_16 : int4 ? pe_dot_4 : pe_dot_8;
    const uint32_t from = int4 ? k / 2 : k;
    const uint64_t two = dot(w->in + (x16 ? 2 * at : at), p->weight[0] + from, p->weight[1] + from, end - k);
    p->a[0] += (uint32_t)two;
    p->a[1] += (uint32_t)(two >> 32);
}

/* Weights k up to `end` of one filter lie beside values of one channel, from `at`. */
static uint32_t inside_channel(const window *w, const uint8_t *filter, uint32_t at, uint32_t k, uint32_t end)
{
    const uint32_t channels = w->g->channels;
    const int8_t *x = (const int8_t *)w->in;
    uint32_t a = 0;
    if (w->flags & PE_X16)
        for (; k < end; k++, at += channels)
            a += (uint32_t)(((const int16_t *)(const void *)x)[at] * (int8_t)filter[k]);
    else if (w->flags & PE_INT4)
        for (; k < end; k++, at += channels)
            a += (uint32_t)(x[at] * pe_weight4(filter, k));
    else
        for (; k < end; k++, at += channels)
            a += (uint32_t)(x[at] * (int8_t)filter[k]);
    return a;
}

static void convolve(const window *w, pair *p)
{
    const pe_geometry *g = w->g;
    const uint32_t deep = w->flags & PE_DEPTHWISE, each = deep ? 1u : g->channels, row_taps = g->kernel_width * each;
    uint32_t k = 0;
    p->a[0] = p->a[1] = 0;
    for (uint32_t u = 0; u < g->kernel_height; u++, k += row_taps) {
        if (u < w->first_row || u >= w->end_row) {
            if (g->zero_in)
                outside(w, k, k + row_taps, p);
            continue;
        }
        const uint32_t begin = k + w->first_column * each, end = k + w->end_column * each;
        const uint32_t pixel = (uint32_t)(w->row + (int32_t)u) * g->width + (uint32_t)(w->column + (int32_t)w->first_column);
        const uint32_t at = pixel * g->channels;
        if (deep)
            for (uint32_t f = 0; f < p->count; f++)
                p->a[f] += inside_channel(w, p->weight[f], at + p->channel[f], begin, end);
        else
            inside(w, at, begin, end, p);
        if (g->zero_in && end - begin != row_taps) {
            outside(w, k, begin, p);
            outside(w, end, k + row_taps, p);
        }
    }
}

/* The part of a window that lies in the image; some of it does (pe_image.c). */
static window place(const pe_geometry *g, const void *in, uint32_t flags, uint32_t i, uint32_t j)
{
    const int32_t row = (int32_t)(i * g->down) - g->top, column = (int32_t)(j * g->right) - g->left;
    const window w = {g, in, flags, row, column,
                      first_inside(row), end_inside(row, g->kernel_height, g->height),
                      first_inside(column), end_inside(column, g->kernel_width, g->width)};
    return w;
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
            const window w = place(g, in, flags, i, j);
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
