/* The policy's distribution over a block of rows: samples, log-probabilities, and the loss of PPO with its derivative. */
#ifndef PE_POLICY_H
#define PE_POLICY_H

#include "pe_network.h"
#include "pe_philox.h"

#define MOST_GROUPS 16
#define MOST_OUTPUTS 256

enum { CATEGORICAL, GAUSSIAN, NO_POLICY };
enum { VALUE_PLAIN, VALUE_CLIPPED, VALUE_CLAMPED };
enum { POLICY_LOSS, VALUE_LOSS, ENTROPY, KL, CLIPPED, STATISTICS };

typedef struct pe_head {
    int32_t kind;
    int32_t groups;             /* of choices, or numbers of a Gaussian; 0 where there is a value alone */
    int32_t sizes[MOST_GROUPS]; /* choices of each group; unused for a Gaussian */
} pe_head;

/* Outputs of the policy; the value follows them. */
static inline int head_outputs(const pe_head *h)
{
    int n = 0;
    for (int g = 0; g < h->groups; g++)
        n += h->kind == CATEGORICAL ? h->sizes[g] : 1;
    return n;
}

/* Weights and bounds of the loss; those that are 0 or negative where said so are off. */
typedef struct pe_loss {
    double clip;
    double dual_clip; /* ≤ 0: off */
    double value_weight, value_clip;
    double entropy_weight, kl_weight;
    int32_t value_form;
    int32_t unused;
} pe_loss;

/* Samples of a minibatch, in the order of the rollout; choices as (samples, groups) int32, or numbers as (samples, groups) real. `allowed` is
 * (samples, outputs), 0 for the choices that could not be taken; null where all could. A critic alone has value and returns. */
typedef struct samples {
    const real *log_prob, *value, *advantage, *returns;
    const int32_t *choice;
    const real *number;
    const uint8_t *allowed;
} samples;

/* Room that the functions below need, in numbers, for outputs and value of a row together. */
static inline ptrdiff_t policy_workspace(int outputs) { return (ptrdiff_t)BLOCK * (3 * (outputs + 1) + 16); }

/* Draw an action for each row, with its log-probability. out: (rows, row) of the network. Words are drawn from
 * philox(draw, row index, step) of the rows' own indices and steps. allowed: (rows, outputs), or null; each group needs one that is not 0. */
void policy_sample(const pe_head *h, const real *log_std, int rows, const real *out, int row, uint32_t seed, const uint32_t *index,
                   const uint64_t *step, const uint8_t *allowed, int32_t *choice, real *number, real *log_prob, real *workspace);

/* Loss of the samples at `place` (rows of them), its derivative by out (rows, row) and, added, by log_std; sums of the statistics are added.
 * Advantages are taken as (advantage − mean) · scale, and all is divided by `count`, the samples of the whole minibatch. */
void policy_loss(const pe_head *h, const real *log_std, const pe_loss *loss, const samples *s, const int32_t *place, int rows, const real *out,
                 int row, real mean, real scale, real count, real *d, real *d_log_std, double *statistics, real *workspace);

/* The same of the values (rows,) of a critic alone. */
void critic_loss(const pe_loss *loss, const samples *s, const int32_t *place, int rows, const real *value, real count, real *d, double *statistics);

#endif
