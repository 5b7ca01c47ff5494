#include "pe_batch.h"

#define LINE ((int)(64 / sizeof(real)))

/* Numbers from one row to the next. */
static ptrdiff_t spaced(int columns)
{
    ptrdiff_t lines = ROUND_UP(columns, LINE) / LINE;
    return columns * (int)sizeof(real) < 512 ? ROUND_UP(columns, LANES) : (lines | 1) * LINE;
}

void mlp_plan(mlp *m, const int32_t *widths, int layers, int activation)
{
    *m = (mlp){.layers = layers, .inputs = widths[0], .outputs = widths[layers], .activation = activation};
    for (int k = 0; k < layers; k++) {
        dense *l = &m->layer[k];
        int last = k == layers - 1;
        *l = (dense){.inputs = widths[k], .outputs = widths[k + 1], .rows = widths[last ? k + 1 : k]};
        int columns = widths[last ? k : k + 1];
        l->columns = ROUND_UP(columns, LANES);
        l->stride = spaced(columns);
        l->flat_weight = m->flat;
        l->flat_bias = m->flat + (ptrdiff_t)l->inputs * l->outputs;
        m->flat = l->flat_bias + l->outputs;
        l->weight = m->packed;
        l->bias = m->packed + l->rows * l->stride;
        m->packed = l->bias + ROUND_UP(l->outputs, LINE);
        l->transposed = m->transposes;
        l->transposed_stride = spaced(l->inputs);
        m->transposes += k && !last ? l->outputs * l->transposed_stride : 0;
        m->hidden += last ? 0 : l->stride;
    }
    m->packed = ROUND_UP(m->packed, LINE);
}

void mlp_pack(const mlp *m, const real *flat, real *packed)
{
    memset(packed, 0, sizeof(real) * (size_t)m->packed);
    for (const dense *l = m->layer; l < m->layer + m->layers; l++) {
        int across = l == m->layer + m->layers - 1;
        for (int o = 0; o < l->outputs; o++)
            for (int i = 0; i < l->inputs; i++)
                packed[l->weight + (across ? o : i) * l->stride + (across ? i : o)] = flat[l->flat_weight + (ptrdiff_t)o * l->inputs + i];
        memcpy(packed + l->bias, flat + l->flat_bias, sizeof(real) * (size_t)l->outputs);
    }
}

void mlp_unpack(const mlp *m, const real *packed, real *flat)
{
    for (const dense *l = m->layer; l < m->layer + m->layers; l++) {
        int across = l == m->layer + m->layers - 1;
        for (int o = 0; o < l->outputs; o++)
            for (int i = 0; i < l->inputs; i++)
                flat[l->flat_weight + (ptrdiff_t)o * l->inputs + i] = packed[l->weight + (across ? o : i) * l->stride + (across ? i : o)];
        memcpy(flat + l->flat_bias, packed + l->bias, sizeof(real) * (size_t)l->outputs);
    }
}

/* Of the rows of a weight from `from` on. */
static void transpose_rows(const dense *l, const real *packed, real *transposes, int from, int to)
{
    for (int o = 0; o < l->outputs; o++)
        for (int i = from; i < to; i++)
            transposes[l->transposed + o * l->transposed_stride + i] = packed[l->weight + i * l->stride + o];
}

void mlp_transpose(const mlp *m, const real *packed, real *transposes)
{
    for (int k = 1; k < m->layers - 1; k++)
        transpose_rows(&m->layer[k], packed, transposes, 0, m->layer[k].inputs);
}

/* Σ a·b over whole vectors: four sums side by side, then lane by lane, always in this order. */
static real dot(int n, const real *a, const real *b)
{
    vec s[4] = {all(0), all(0), all(0), all(0)};
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++)
            s[k] += load(a + i + k * LANES) * load(b + i + k * LANES);
    for (int k = 0; i < n; i += LANES, k++)
        s[k] += load(a + i) * load(b + i);
    vec sum = (s[0] + s[1]) + (s[2] + s[3]);
    real total = 0;
    for (int k = 0; k < LANES; k++)
        total += sum[k];
    return total;
}

static void mlp_layer(const mlp *m, const dense *l, const real *packed, int rows, const real *below, ptrdiff_t below_row, real *out)
{
    product(rows, l->columns, l->inputs, below, below_row, 1, packed + l->weight, l->stride, out, l->stride, 0, packed + l->bias);
    for (int r = 0; r < rows; r++)
        activate(m->activation, l->columns, out + r * l->stride);
}

void mlp_forward(const mlp *m, const real *packed, int rows, const real *x, const trail *t, real *out)
{
    const dense *l = m->layer;
    const real *below = x;
    ptrdiff_t below_row = m->inputs;
    for (int k = 0; k < m->layers - 1; k++, l++) {
        mlp_layer(m, l, packed, rows, below, below_row, t->out[k]);
        below = t->out[k];
        below_row = l->stride;
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < l->outputs; o++)
            out[r * l->outputs + o] = dot(l->columns, below + r * below_row, packed + l->weight + o * l->stride) + packed[l->bias + o];
}

void mlp_backward(const mlp *m, const real *packed, const real *transposes, int rows, const real *d, const trail *t)
{
    const dense *last = m->layer + m->layers - 1, *l = last - 1;
    int k = m->layers - 2;
    for (int r = 0; r < rows; r++) {
        real *delta = t->delta[k] + r * l->stride;
        for (int i = 0; i < l->columns; i++)
            delta[i] = d[r * last->outputs] * packed[last->weight + i];
        for (int o = 1; o < last->outputs; o++)
            for (int i = 0; i < l->columns; i++)
                delta[i] += d[r * last->outputs + o] * packed[last->weight + o * last->stride + i];
        deactivate(m->activation, l->columns, t->out[k] + r * l->stride, delta);
    }
    for (; k > 0; k--, l--) {
        const dense *below = l - 1;
        product(rows, below->columns, l->outputs, t->delta[k], l->stride, 1, transposes + l->transposed, l->transposed_stride, t->delta[k - 1],
                below->stride, 0, NULL);
        for (int r = 0; r < rows; r++)
            deactivate(m->activation, below->columns, t->out[k - 1] + r * below->stride, t->delta[k - 1] + r * below->stride);
    }
}

static void step_numbers(ptrdiff_t n, const real *restrict gradient, const stepping *s, real *restrict parameter, real *restrict first,
                         real *restrict second, real *restrict target)
{
    const stepping c = *s;
    for (ptrdiff_t i = 0; i < n; i++) {
        real g = gradient[i];
        first[i] = c.keep1 * first[i] + c.take1 * g;
        second[i] = c.keep2 * second[i] + c.take2 * (g * g);
        parameter[i] -= c.rate * first[i] / (pe_sqrt(second[i]) * c.correction + c.epsilon);
    }
    for (ptrdiff_t i = 0; target && i < n; i++)
        target[i] += c.follow * (parameter[i] - target[i]);
}

void mlp_step(const mlp *m, int layer, int slab, int rows, const real *x, const real *d, const trail *t, const stepping *s, real *packed,
              real *transposes, real *first, real *second, real *target, real *room)
{
    const dense *l = &m->layer[layer];
    int across = layer == m->layers - 1, from = slab * SLAB, to = from + SLAB < l->rows ? from + SLAB : l->rows;
    const real *below = layer ? t->out[layer - 1] : x, *delta = across ? d : t->delta[layer];
    ptrdiff_t below_row = layer ? l[-1].stride : m->inputs, delta_row = across ? l->outputs : l->stride;
    const real *left = across ? delta : below, *right = across ? below : delta;
    ptrdiff_t left_row = across ? delta_row : below_row, right_row = across ? below_row : delta_row;
    product(to - from, l->columns, rows, left + from, 1, left_row, right, right_row, room, l->columns, 0, NULL);
    for (int i = from; i < to; i++) {
        ptrdiff_t at = l->weight + i * l->stride;
        step_numbers(l->columns, room + (i - from) * l->columns, s, packed + at, first + at, second + at, target ? target + at : NULL);
    }
    if (layer && !across)
        transpose_rows(l, packed, transposes, from, to);
    if (slab)
        return;
    memset(room, 0, sizeof(real) * (size_t)l->outputs);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < l->outputs; o++)
            room[o] += delta[r * delta_row + o];
    step_numbers(l->outputs, room, s, packed + l->bias, first + l->bias, second + l->bias, target ? target + l->bias : NULL);
}
