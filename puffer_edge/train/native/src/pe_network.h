/* Multilayer perceptrons: forward, backward, and the packed form of their parameters in which both work.
 *
 * Outside, parameters are one flat buffer in torch's order: for each network and layer the weight (outputs, inputs), then the bias. Inside
 * they are packed: weights transposed, (inputs, outputs rounded up to whole vectors), then the bias; what pads is zero and stays zero.
 */
#ifndef PE_NETWORK_H
#define PE_NETWORK_H

#include <stddef.h>

#include "pe_math.h"

#define MOST_LAYERS 4
#define MOST_NETWORKS 2
#define BLOCK 48 /* rows that go through a network together */

enum { RELU, TANH };

/* Networks side by side on the same input; their outputs lie one after the other: the policy's, then the value's.
 * With one trunk for both there is one network, and its last layer has all of these outputs. */
typedef struct pe_networks {
    int32_t networks;
    int32_t activation; /* of every layer but the last */
    int32_t layers[MOST_NETWORKS];
    int32_t widths[MOST_NETWORKS][MOST_LAYERS + 1]; /* inputs, then the outputs of each layer */
} pe_networks;

typedef struct layer {
    int inputs, outputs, padded; /* padded: outputs rounded up */
    int last;
    ptrdiff_t flat_weight, flat_bias; /* places in the flat buffer */
    ptrdiff_t weight, bias;           /* in the packed one */
    ptrdiff_t transposed;             /* in the buffer of transposes, (outputs, inputs rounded up); backward needs it but for first layers */
    ptrdiff_t activation;             /* of a block, in a workspace: (BLOCK, padded) */
    int network, first;
} layer;

typedef struct network {
    int layers;
    int inputs, outputs; /* outputs of all networks */
    int activation;
    layer layer[MOST_NETWORKS * MOST_LAYERS];
    ptrdiff_t flat, packed, transposes; /* sizes */
    ptrdiff_t workspace;                /* size for forward and backward of a block */
    int widest;
} network;

/* 0, or what is wrong. */
const char *network_plan(network *n, const pe_networks *wanted);
void network_pack(const network *n, const real *flat, real *packed);
void network_unpack(const network *n, const real *packed, real *flat);
void network_transpose(const network *n, const real *packed, real *transposes, int part, int parts);
/* x: (rows, inputs), rows ≤ BLOCK. out: (rows, outputs). The workspace keeps what backward needs. */
void network_forward(const network *n, const real *packed, int rows, const real *x, real *workspace, real *out);
/* d: (rows, outputs), derivative by the outputs; adds to the packed gradient. After forward of the same rows. */
void network_backward(const network *n, const real *transposes, int rows, const real *x, real *workspace, const real *d, real *gradient);

#endif
