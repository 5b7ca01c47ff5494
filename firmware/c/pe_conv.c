/* conv: a convolution over an image with channels last, dense or depthwise; what lies outside the image is its zero point. */
#include "pe_conv.h"

#include "pe_dot.h"
#include "pe_ops.h"

typedef struct {
    const pe_geometry *g;
    const void *in;
    const uint8_t *weight; /* of one filter */
    uint32_t flags, channel;
    int32_t i, j; /* where its window begins */
} window;

static int32_t value_at(const window *w, uint32_t k) { return w->flags & PE_X16 ? ((const int16_t *)w->in)[k] : ((const int8_t *)w->in)[k]; }

static int32_t weight_at(const window *w, uint32_t k) { return w->flags & PE_INT4 ? pe_weight4(w->weight, k) : (int8_t)w->weight[k]; }

/* Every tap by itself: for depthwise filters, 4-bit weights, and rows that leave the image. `k` is the row's first weight. */
static uint32_t slow_row(const window *w, int32_t row, uint32_t k)
{
    const pe_geometry *g = w->g;
    const uint32_t first = w->flags & PE_DEPTHWISE ? w->channel : 0, last = w->flags & PE_DEPTHWISE ? first + 1u : g->channels;
    uint32_t a = 0;
    for (int32_t v = 0; v < g->kernel_width; v++) {
        const int32_t column = w->j + v;
        const int inside = row >= 0 && row < g->height && column >= 0 && column < g->width;
        const uint32_t at = inside ? ((uint32_t)row * g->width + (uint32_t)column) * g->channels : 0;
        for (uint32_t c = first; c < last; c++)
            a += (uint32_t)(weight_at(w, k++) * (inside ? value_at(w, at + c) : g->zero_in));
    }
    return a;
}

static uint32_t sum(const window *w)
{
    const pe_geometry *g = w->g;
    const uint32_t taps = g->kernel_width * (w->flags & PE_DEPTHWISE ? 1u : g->channels);
    const int whole = !(w->flags & (PE_DEPTHWISE | PE_INT4)) && w->j >= 0 && w->j + g->kernel_width <= g->width;
    uint32_t a = 0, k = 0;
    for (int32_t u = 0; u < g->kernel_height; u++, k += taps) {
        const int32_t row = w->i + u;
        if (!whole || row < 0 || row >= g->height) {
            a += slow_row(w, row, k);
            continue;
        }
        const uint32_t at = ((uint32_t)row * g->width + (uint32_t)w->j) * g->channels;
        const int8_t *weight = (const int8_t *)w->weight + k;
        a += w->flags & PE_X16 ? pe_dot16((const int16_t *)w->in + at, weight, taps) : pe_dot8((const int8_t *)w->in + at, weight, taps);
    }
    return a;
}

void pe_conv(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const pe_geometry *g = (const void *)(op + 1);
    const uint32_t filters = g->filters, flags = op->flags;
    const uint32_t stride = pe_stride(g->kernel_height * g->kernel_width * (flags & PE_DEPTHWISE ? 1u : g->channels), flags);
    const int32_t *bias = (const void *)(g + 1);
    const int32_t *multiplier = bias + filters;
    const uint8_t *shift = (const void *)(flags & PE_SHIFT ? multiplier : multiplier + filters);
    const uint8_t *weight = shift + pe_padded(filters);
    const int32_t zero = op->zero, low = op->low - zero, high = op->high - zero;
    uint32_t to = 0;
    for (uint32_t i = 0; i < g->out_height; i++)
        for (uint32_t j = 0; j < g->out_width; j++)
            for (uint32_t f = 0; f < filters; f++, to++) {
                const window w = {g, in, weight + f * stride, flags, flags & PE_DEPTHWISE ? f / (filters / g->channels) : 0,
                                  (int32_t)(i * g->down) - g->top, (int32_t)(j * g->right) - g->left};
                const int32_t a = (int32_t)(sum(&w) + (uint32_t)bias[f]);
                const int32_t scaled = flags & PE_SHIFT ? pe_shifted(a, shift[f]) : pe_requantise(a, multiplier[f], shift[f]);
                const int32_t y = pe_clamp(scaled, low, high) + zero;
                if (flags & PE_X16)
                    ((int16_t *)out)[to] = (int16_t)y;
                else
                    ((int8_t *)out)[to] = (int8_t)y;
            }
}
