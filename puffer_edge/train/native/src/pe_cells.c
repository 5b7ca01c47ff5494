/* GRU and LSTM cells through sequences, and back: the recurrence alone, as the products around it are torch's. The equations, and the order
 * of the gates, are those of puffer_edge/layers.py. Every cell and row goes its own way through time, so no sum is split.
 *
 * L steps, K cells, S rows, H units, G gates; states: h, of an LSTM c too. Arrays hold steps, (states,) cells, rows, numbers. */

typedef struct sequence {
    int64_t steps, cells, rows, size;
    const real *kept, *start; /* (L, S) what memory is multiplied by after each step; (states, K, S, H) memory before the first one */
} sequence;

INLINE real logistic(real x) { return (real)0.5 + (real)0.5 * pe_tanh((real)0.5 * x); }

/* sum[n] += x[m] · matrix (m, n); four rows at a time, so that a sum is loaded and stored a quarter as often. */
INLINE void add_product(real *restrict sum, const real *restrict x, const real *restrict matrix, int64_t m, int64_t n)
{
    int64_t j = 0;
    for (; j + 4 <= m; j += 4) {
        const real *a = matrix + j * n, *b = a + n, *c = b + n, *d = c + n;
        for (int64_t i = 0; i < n; i++)
            sum[i] += (x[j] * a[i] + x[j + 1] * b[i]) + (x[j + 2] * c[i] + x[j + 3] * d[i]);
    }
    for (; j < m; j++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += x[j] * matrix[j * n + i];
}

static void gru_step(int64_t n, const real *restrict given, const real *restrict sum, const real *restrict h, real *restrict gate,
                     real *restrict inner, real *restrict after)
{
    for (int64_t i = 0; i < n; i++) {
        real reset = logistic(given[i] + sum[i]), update = logistic(given[n + i] + sum[n + i]);
        real new = pe_tanh(given[2 * n + i] + reset * sum[2 * n + i]);
        gate[i] = reset, gate[n + i] = update, gate[2 * n + i] = new;
        inner[i] = sum[2 * n + i];
        after[i] = new + update * (h[i] - new);
    }
}

static void lstm_step(int64_t n, const real *restrict given, const real *restrict sum, const real *restrict c, real *restrict gate,
                      real *restrict inner, real *restrict after, real *restrict after_c)
{
    for (int64_t i = 0; i < n; i++) {
        real entered = logistic(given[i] + sum[i]), forgotten = logistic(given[n + i] + sum[n + i]);
        real new = pe_tanh(given[2 * n + i] + sum[2 * n + i]), shown = logistic(given[3 * n + i] + sum[3 * n + i]);
        gate[i] = entered, gate[n + i] = forgotten, gate[2 * n + i] = new, gate[3 * n + i] = shown;
        real cell = forgotten * c[i] + entered * new, squashed = pe_tanh(cell);
        inner[i] = squashed, after_c[i] = cell, after[i] = shown * squashed;
    }
}

/* given (L, K, S, G·H); weight (K, H, G·H); bias (K, G·H); out: after (L, states, K, S, H) before it is cleared, and for the way back gates
 * (L, K, S, G·H) and inner (L, K, S, H): of a GRU what the reset gate weighs, of an LSTM tanh c. work: room for (G + 2)·H numbers. */
API void pe_cells_forward(int32_t lstm, const sequence *q, const real *given, const real *weight, const real *bias, real *after, real *gates,
                          real *inner, real *work)
{
    int64_t n = q->size, wide = (lstm ? 4 : 3) * n, states = lstm ? 2 : 1, part = q->cells * q->rows * n;
    real *sum = work, *h = sum + wide, *c = h + n;
    for (int64_t k = 0; k < q->cells; k++)
        for (int64_t s = 0; s < q->rows; s++) {
            int64_t row = k * q->rows + s;
            memcpy(h, q->start + row * n, sizeof(real) * (size_t)n);
            if (lstm)
                memcpy(c, q->start + part + row * n, sizeof(real) * (size_t)n);
            for (int64_t t = 0; t < q->steps; t++) {
                int64_t at = t * q->cells * q->rows + row;
                real *to = after + t * states * part + row * n, keep = q->kept[t * q->rows + s];
                memcpy(sum, bias + k * wide, sizeof(real) * (size_t)wide);
                add_product(sum, h, weight + k * n * wide, n, wide);
                if (lstm)
                    lstm_step(n, given + at * wide, sum, c, gates + at * wide, inner + at * n, to, to + part);
                else
                    gru_step(n, given + at * wide, sum, h, gates + at * wide, inner + at * n, to);
                for (int64_t i = 0; i < n; i++)
                    h[i] = keep * to[i];
                for (int64_t i = 0; lstm && i < n; i++)
                    c[i] = keep * to[part + i];
            }
        }
}

static void gru_back(int64_t n, const real *restrict gate, const real *restrict inner, const real *restrict before, real keep_before,
                     real *restrict d, real *restrict given, real *restrict kept)
{
    for (int64_t i = 0; i < n; i++) {
        real reset = gate[i], update = gate[n + i], new = gate[2 * n + i];
        real d_new = d[i] * (1 - update) * (1 - new * new);
        given[i] = kept[i] = d_new * inner[i] * reset * (1 - reset);
        given[n + i] = kept[n + i] = d[i] * (keep_before * before[i] - new) * update * (1 - update);
        given[2 * n + i] = d_new;
        kept[2 * n + i] = d_new * reset;
        d[i] *= update;
    }
}

static void lstm_back(int64_t n, const real *restrict gate, const real *restrict inner, const real *restrict before, real keep_before,
                      real *restrict d, real *restrict d_c, real *restrict given)
{
    for (int64_t i = 0; i < n; i++) {
        real entered = gate[i], forgotten = gate[n + i], new = gate[2 * n + i], shown = gate[3 * n + i], squashed = inner[i];
        real cell = d_c[i] + d[i] * shown * (1 - squashed * squashed);
        given[i] = cell * new * entered * (1 - entered);
        given[n + i] = cell * keep_before * before[i] * forgotten * (1 - forgotten);
        given[2 * n + i] = cell * entered * (1 - new * new);
        given[3 * n + i] = d[i] * squashed * shown * (1 - shown);
        d_c[i] = cell * forgotten, d[i] = 0;
    }
}

/* d_after (L, states, K, S, H) → d_given (L, K, S, G·H), and d_kept likewise: by what h gives to each gate; of an LSTM they are one array.
 * weight (K, G·H, H); after, gates and inner as the way there left them. work: room for 2·H numbers. */
API void pe_cells_backward(int32_t lstm, const sequence *q, const real *weight, const real *after, const real *gates, const real *inner,
                           const real *d_after, real *d_given, real *d_kept, real *work)
{
    int64_t n = q->size, wide = (lstm ? 4 : 3) * n, states = lstm ? 2 : 1, part = q->cells * q->rows * n;
    real *d = work, *d_c = d + n;
    for (int64_t k = 0; k < q->cells; k++)
        for (int64_t s = 0; s < q->rows; s++) {
            int64_t row = k * q->rows + s;
            memset(work, 0, sizeof(real) * (size_t)(2 * n));
            for (int64_t t = q->steps - 1; t >= 0; t--) {
                int64_t at = t * q->cells * q->rows + row;
                real keep = q->kept[t * q->rows + s], keep_before = t ? q->kept[(t - 1) * q->rows + s] : 1;
                const real *from = d_after + t * states * part + row * n;
                const real *before = (t ? after + (t - 1) * states * part : q->start) + (lstm ? part : 0) + row * n;
                for (int64_t i = 0; i < n; i++)
                    d[i] = from[i] + keep * d[i];
                for (int64_t i = 0; lstm && i < n; i++)
                    d_c[i] = from[part + i] + keep * d_c[i];
                real *to = (lstm ? d_given : d_kept) + at * wide;
                if (lstm)
                    lstm_back(n, gates + at * wide, inner + at * n, before, keep_before, d, d_c, to);
                else
                    gru_back(n, gates + at * wide, inner + at * n, before, keep_before, d, d_given + at * wide, to);
                add_product(d, to, weight + k * wide * n, wide, n);
            }
        }
}
