#include "pe_network.h"

/* Rows and vectors of the tile of a product that stays in registers. */
#if PE_BYTES >= 64
#define TILE_ROWS 12
#define TILE_VECS 2
#elif PE_BYTES == 32
#define TILE_ROWS 6
#define TILE_VECS 2
#else
#define TILE_ROWS 4
#define TILE_VECS 2
#endif

/* Unrolled, a tile's sums stay in registers: without it the product is three times slower. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* One tile: C (rows, vecs) = [C or bias or 0] + A · B. Each element is a chain of additions in the order of k, whatever the tile's size,
 * so that a row's result does not depend on the rows beside it. */
INLINE void tile(const int rows, const int vecs, int k_count, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const real *b, ptrdiff_t b_k, real *c,
                 ptrdiff_t c_row, const int add, const real *bias)
{
    vec sum[TILE_ROWS][TILE_VECS];
UNROLL
    for (int i = 0; i < rows; i++)
UNROLL
        for (int j = 0; j < vecs; j++)
            sum[i][j] = add ? load(c + i * c_row + j * LANES) : bias ? load(bias + j * LANES) : all(0);
    for (int k = 0; k < k_count; k++) {
        vec right[TILE_VECS];
UNROLL
        for (int j = 0; j < vecs; j++)
            right[j] = load(b + k * b_k + j * LANES);
UNROLL
        for (int i = 0; i < rows; i++) {
            vec left = all(a[i * a_row + k * a_k]);
UNROLL
            for (int j = 0; j < vecs; j++)
                sum[i][j] += left * right[j];
        }
    }
UNROLL
    for (int i = 0; i < rows; i++)
UNROLL
        for (int j = 0; j < vecs; j++)
            store(c + i * c_row + j * LANES, sum[i][j]);
}

INLINE void panel(int m, const int vecs, int k_count, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const real *b, ptrdiff_t b_k, real *c,
                  ptrdiff_t c_row, const int add, const real *bias)
{
    int i = 0;
    for (; i + TILE_ROWS <= m; i += TILE_ROWS)
        tile(TILE_ROWS, vecs, k_count, a + i * a_row, a_row, a_k, b, b_k, c + i * c_row, c_row, add, bias);
    for (; i + 4 <= m; i += 4)
        tile(4, vecs, k_count, a + i * a_row, a_row, a_k, b, b_k, c + i * c_row, c_row, add, bias);
    for (; i < m; i++)
        tile(1, vecs, k_count, a + i * a_row, a_row, a_k, b, b_k, c + i * c_row, c_row, add, bias);
}

/* C (m, n) = [C or bias or 0] + A (m, k_count) · B (k_count, n), n a multiple of LANES; A's element (i, k) is a[i · a_row + k · a_k].
 * Panels of B that fit the first cache are used for all rows before the next one. */
INLINE void product(int m, int n, int k_count, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const real *b, ptrdiff_t b_k, real *c, ptrdiff_t c_row,
                    const int add, const real *bias)
{
    int j = 0;
    for (; j + TILE_VECS * LANES <= n; j += TILE_VECS * LANES)
        panel(m, TILE_VECS, k_count, a, a_row, a_k, b + j, b_k, c + j, c_row, add, bias ? bias + j : NULL);
    for (; j < n; j += LANES)
        panel(m, 1, k_count, a, a_row, a_k, b + j, b_k, c + j, c_row, add, bias ? bias + j : NULL);
}

static void product_new(int m, int n, int k_count, const real *a, ptrdiff_t a_row, const real *b, ptrdiff_t b_k, real *c, const real *bias)
{
    product(m, n, k_count, a, a_row, 1, b, b_k, c, n, 0, bias);
}

static void product_add(int m, int n, int k_count, const real *a, ptrdiff_t a_k, const real *b, real *c)
{
    product(m, n, k_count, a, 1, a_k, b, n, c, n, 1, NULL);
}

const char *network_plan(network *n, const pe_networks *wanted)
{
    memset(n, 0, sizeof *n);
    if (wanted->networks < 1 || wanted->networks > MOST_NETWORKS)
        return "1 or 2 networks";
    if (wanted->activation != RELU && wanted->activation != TANH)
        return "relu or tanh";
    n->activation = wanted->activation;
    n->inputs = wanted->widths[0][0];
    for (int k = 0; k < wanted->networks; k++) {
        if (wanted->layers[k] < 1 || wanted->layers[k] > MOST_LAYERS)
            return "1 to 4 layers";
        if (wanted->widths[k][0] != n->inputs)
            return "the same inputs for all networks";
        for (int j = 0; j < wanted->layers[k]; j++) {
            layer *l = &n->layer[n->layers++];
            const int32_t *width = wanted->widths[k] + j;
            if (width[0] < 1 || width[0] > 4096 || width[1] < 1 || width[1] > 4096)
                return "widths of 1 to 4096";
            *l = (layer){.inputs = width[0], .outputs = width[1], .padded = ROUND_UP(width[1], LANES), .network = k, .first = j == 0,
                         .last = j == wanted->layers[k] - 1};
            l->flat_weight = n->flat;
            l->flat_bias = n->flat + (ptrdiff_t)l->inputs * l->outputs;
            n->flat = l->flat_bias + l->outputs;
            l->weight = n->packed;
            l->bias = n->packed + (ptrdiff_t)l->inputs * l->padded;
            n->packed = l->bias + l->padded;
            l->transposed = n->transposes;
            n->transposes += l->first ? 0 : (ptrdiff_t)l->outputs * ROUND_UP(l->inputs, LANES);
            l->activation = n->workspace;
            n->workspace += (ptrdiff_t)BLOCK * l->padded;
            n->widest = l->padded > n->widest ? l->padded : n->widest;
            n->outputs += l->last ? l->outputs : 0;
        }
    }
    n->workspace += 2 * (ptrdiff_t)BLOCK * n->widest;
    return NULL;
}

void network_pack(const network *n, const real *flat, real *packed)
{
    memset(packed, 0, sizeof(real) * (size_t)n->packed);
    for (const layer *l = n->layer; l < n->layer + n->layers; l++) {
        for (int o = 0; o < l->outputs; o++)
            for (int i = 0; i < l->inputs; i++)
                packed[l->weight + (ptrdiff_t)i * l->padded + o] = flat[l->flat_weight + (ptrdiff_t)o * l->inputs + i];
        memcpy(packed + l->bias, flat + l->flat_bias, sizeof(real) * (size_t)l->outputs);
    }
}

void network_unpack(const network *n, const real *packed, real *flat)
{
    for (const layer *l = n->layer; l < n->layer + n->layers; l++) {
        for (int o = 0; o < l->outputs; o++)
            for (int i = 0; i < l->inputs; i++)
                flat[l->flat_weight + (ptrdiff_t)o * l->inputs + i] = packed[l->weight + (ptrdiff_t)i * l->padded + o];
        memcpy(flat + l->flat_bias, packed + l->bias, sizeof(real) * (size_t)l->outputs);
    }
}

void network_transpose(const network *n, const real *packed, real *transposes, int part, int parts)
{
    for (const layer *l = n->layer; l < n->layer + n->layers; l++) {
        ptrdiff_t row = ROUND_UP(l->inputs, LANES);
        for (int o = part; o < l->outputs && !l->first; o += parts)
            for (int i = 0; i < l->inputs; i++)
                transposes[l->transposed + o * row + i] = packed[l->weight + (ptrdiff_t)i * l->padded + o];
    }
}

static void activate(int kind, ptrdiff_t count, real *y)
{
    if (kind == RELU)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = y[i] < 0 ? 0 : y[i]; /* NaN stays NaN */
    else
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = pe_tanh(y[i]);
}

static void deactivate(int kind, ptrdiff_t count, const real *y, real *d)
{
    if (kind == RELU)
        for (ptrdiff_t i = 0; i < count; i++)
            d[i] = y[i] > 0 ? d[i] : 0;
    else
        for (ptrdiff_t i = 0; i < count; i++)
            d[i] *= 1 - y[i] * y[i];
}

void network_forward(const network *n, const real *packed, int rows, const real *x, real *workspace, real *out)
{
    int column = 0;
    const real *below = x;
    ptrdiff_t below_row = n->inputs;
    for (const layer *l = n->layer; l < n->layer + n->layers; l++) {
        real *y = workspace + l->activation;
        if (l->first) {
            below = x;
            below_row = n->inputs;
        }
        product_new(rows, l->padded, l->inputs, below, below_row, packed + l->weight, l->padded, y, packed + l->bias);
        if (l->last) {
            for (int i = 0; i < rows; i++)
                for (int o = 0; o < l->outputs; o++)
                    out[i * n->outputs + column + o] = y[i * l->padded + o];
            column += l->outputs;
        } else
            activate(n->activation, (ptrdiff_t)rows * l->padded, y);
        below = y;
        below_row = l->padded;
    }
}

void network_backward(const network *n, const real *transposes, int rows, const real *x, real *workspace, const real *d, real *gradient)
{
    real *delta = workspace + n->workspace - 2 * (ptrdiff_t)BLOCK * n->widest, *next = delta + (ptrdiff_t)BLOCK * n->widest;
    int column = n->outputs;
    for (const layer *l = n->layer + n->layers - 1; l >= n->layer; l--) {
        if (l->last) {
            column -= l->outputs;
            for (int i = 0; i < rows; i++)
                for (int o = 0; o < l->padded; o++)
                    delta[i * l->padded + o] = o < l->outputs ? d[i * n->outputs + column + o] : 0;
        }
        const real *below = l->first ? x : workspace + l[-1].activation;
        ptrdiff_t below_row = l->first ? n->inputs : l[-1].padded;
        product_add(l->inputs, l->padded, rows, below, below_row, delta, gradient + l->weight);
        for (int i = 0; i < rows; i++)
            for (int o = 0; o < l->padded; o++)
                gradient[l->bias + o] += delta[i * l->padded + o];
        if (l->first)
            continue;
        product_new(rows, l[-1].padded, l->outputs, delta, l->padded, transposes + l->transposed, l[-1].padded, next, NULL);
        deactivate(n->activation, (ptrdiff_t)rows * l[-1].padded, below, next);
        real *done = delta;
        delta = next;
        next = done;
    }
}
