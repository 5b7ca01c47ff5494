/* One multilayer perceptron over a whole batch, in two halves that threads share: rows go forward and backward, each by itself, and then
 * each slab of the parameters sums its gradient over all rows and takes its step. No sum is ever split, so the bits depend neither on the
 * number of threads nor on how rows are dealt out, and no gradient is written to memory.
 *
 * Packed, a weight is (inputs, outputs) with `stride` from row to row; that of the last layer, which has few outputs, (outputs, inputs).
 * What pads a row is zero and stays zero. A stride is an odd number of cache lines where rows are long: at a power of two the rows of a
 * panel fall on each other in the first cache.
 */
#ifndef PE_BATCH_H
#define PE_BATCH_H

#include "pe_network.h"

#define SLAB 24 /* rows of a weight that step together */

typedef struct dense {
    int inputs, outputs;
    int rows, columns;              /* of the packed weight; columns in whole vectors */
    ptrdiff_t stride;
    ptrdiff_t flat_weight, flat_bias, weight, bias;
    ptrdiff_t transposed, transposed_stride; /* (outputs, inputs), of hidden layers but the first */
} dense;

typedef struct mlp {
    int layers, inputs, outputs, activation;
    dense layer[MOST_LAYERS];
    ptrdiff_t flat, packed, transposes;
    ptrdiff_t hidden; /* numbers of a row in all hidden layers, padded */
} mlp;

/* What rows leave behind in a network: outputs and their derivatives of each hidden layer, rows × stride. */
typedef struct trail {
    real *out[MOST_LAYERS - 1], *delta[MOST_LAYERS - 1];
} trail;

/* Adam (Kingma and Ba, 2015) as in torch; `target` follows by τ where there is one. */
typedef struct stepping {
    real rate, correction, keep1, take1, keep2, take2, epsilon, follow;
} stepping;

/* widths: inputs, then the outputs of each layer, at least two of them. */
void mlp_plan(mlp *m, const int32_t *widths, int layers, int activation);
void mlp_pack(const mlp *m, const real *flat, real *packed);
void mlp_unpack(const mlp *m, const real *packed, real *flat);
void mlp_transpose(const mlp *m, const real *packed, real *transposes);
/* x (rows, inputs) to out (rows, outputs). */
void mlp_forward(const mlp *m, const real *packed, int rows, const real *x, const trail *t, real *out);
/* From d (rows, outputs), the derivative by the outputs, to that by each hidden layer's sums. */
void mlp_backward(const mlp *m, const real *packed, const real *transposes, int rows, const real *d, const trail *t);
/* One slab's gradient over all rows, and its step; with the first slab of a layer the bias. */
void mlp_step(const mlp *m, int layer, int slab, int rows, const real *x, const real *d, const trail *t, const stepping *s, real *packed,
              real *transposes, real *first, real *second, real *target, real *room);

static inline int mlp_slabs(const mlp *m, int layer) { return (m->layer[layer].rows + SLAB - 1) / SLAB; }

#endif
