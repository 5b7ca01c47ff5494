#include "pe_policy.h"

#define HALF_LOG_TAU ((real)0.918938533204672742)

#define FORBIDDEN ((real)-1e9) /* logit of a choice that may not be taken */

typedef real column[BLOCK];

/* Put the logits of choices that may not be taken where no probability is left; row i of the block is row place[i] of the mask, or i. */
static void forbid(int rows, int choices, const uint8_t *allowed, const int32_t *place, column *z)
{
    for (int i = 0; i < rows; i++) {
        const uint8_t *own = allowed + (ptrdiff_t)(place ? place[i] : i) * choices;
        for (int k = 0; k < choices; k++)
            z[k][i] = own[k] ? z[k][i] : FORBIDDEN;
    }
}

/* Their probabilities are 0 to the bit, which the exponential of a finite number is not: none is drawn, and none has a gradient. */
static void rule_out(int rows, int choices, const column *z, column *p)
{
    for (int k = 0; k < choices; k++)
        for (int i = 0; i < rows; i++)
            p[k][i] = z[k][i] == FORBIDDEN ? 0 : p[k][i];
}

/* Of one group, choice by choice in columns: the exponentials of logits less the largest one, their sum, and the logarithm of what to
 * divide by, the largest logit taken in. */
static void exponentials(int rows, int choices, const column *z, column *p, column sum, column divisor)
{
    column most;
    for (int i = 0; i < rows; i++) {
        most[i] = z[0][i];
        sum[i] = 0;
    }
    for (int k = 1; k < choices; k++)
        for (int i = 0; i < rows; i++)
            most[i] = larger(most[i], z[k][i]);
    for (int k = 0; k < choices; k++)
        for (int i = 0; i < rows; i++) {
            p[k][i] = pe_exp(z[k][i] - most[i]);
            sum[i] += p[k][i];
        }
    for (int i = 0; i < rows; i++)
        divisor[i] = pe_log(sum[i]) + most[i];
}

/* The probabilities of one group. */
static void softmax(int rows, int choices, const column *z, column *p, column divisor)
{
    column sum;
    exponentials(rows, choices, z, p, sum, divisor);
    for (int k = 0; k < choices; k++)
        for (int i = 0; i < rows; i++)
            p[k][i] /= sum[i];
}

static void columns_of(int rows, int count, const real *out, int row, column *z)
{
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < count; k++)
            z[k][i] = out[i * row + k];
}

static words draw(uint32_t number, uint32_t index, uint64_t step, uint32_t seed)
{
    return philox(number, index, (uint32_t)step, (uint32_t)(step >> 32), seed, STREAM_ACTION);
}

static void sample_numbers(const pe_head *h, const real *log_std, int rows, const real *out, int row, uint32_t seed, const uint32_t *index,
                           const uint64_t *step, real *number, real *log_prob)
{
    column radius[2], turn[2], noise[4];
    for (int i = 0; i < rows; i++)
        log_prob[i] = 0;
    for (int first = 0; first < h->groups; first += 4) {
        for (int i = 0; i < rows; i++) {
            words w = draw((uint32_t)first / 4, index[i], step[i], seed);
            for (int pair = 0; pair < 2; pair++) {
                radius[pair][i] = ((real)(w.w[2 * pair] >> 8) + 1) * (real)(1.0 / 16777216.0); /* in (0, 1] */
                turn[pair][i] = uniform(w.w[2 * pair + 1]);
            }
        }
        for (int pair = 0; pair < 2 && first + 2 * pair < h->groups; pair++) /* Box and Muller, 1958 */
            for (int i = 0; i < rows; i++) {
                real sine, cosine, length = pe_sqrt(-2 * pe_log(radius[pair][i]));
                pe_turn(turn[pair][i], &sine, &cosine);
                noise[2 * pair][i] = length * cosine;
                noise[2 * pair + 1][i] = length * sine;
            }
        for (int j = first; j < h->groups && j < first + 4; j++) {
            const real *drawn = noise[j - first];
            real deviation = pe_exp(log_std[j]), offset = log_std[j] + HALF_LOG_TAU;
            for (int i = 0; i < rows; i++) {
                number[i * h->groups + j] = out[i * row + j] + deviation * drawn[i];
                log_prob[i] -= (real)0.5 * drawn[i] * drawn[i] + offset;
            }
        }
    }
}

void policy_sample(const pe_head *h, const real *log_std, int rows, const real *out, int row, uint32_t seed, const uint32_t *index,
                   const uint64_t *step, const uint8_t *allowed, int32_t *choice, real *number, real *log_prob, real *workspace)
{
    if (h->kind == GAUSSIAN) {
        sample_numbers(h, log_std, rows, out, row, seed, index, step, number, log_prob);
        return;
    }
    column *z = (column *)workspace, *p = z + head_outputs(h), divisor, sum;
    columns_of(rows, head_outputs(h), out, row, z);
    if (allowed)
        forbid(rows, head_outputs(h), allowed, NULL, z);
    for (int i = 0; i < rows; i++)
        log_prob[i] = 0;
    for (int g = 0, first = 0; g < h->groups; first += h->sizes[g++]) {
        exponentials(rows, h->sizes[g], (const column *)z + first, p + first, sum, divisor);
        if (allowed)
            rule_out(rows, h->sizes[g], (const column *)z + first, p + first);
        column reached = {0}, taken;
        int32_t picked[BLOCK];
        real drawn[BLOCK];
        for (int i = 0; i < rows; i++) {
            drawn[i] = uniform(draw((uint32_t)g, index[i], step[i], seed).w[0]) * sum[i];
            picked[i] = 0;
            taken[i] = z[first][i];
        }
        for (int k = 0; k + 1 < h->sizes[g]; k++) /* the first choice with which the sum exceeds the number drawn: none of probability 0 */
            for (int i = 0; i < rows; i++) {
                reached[i] += p[first + k][i];
                int beyond = drawn[i] >= reached[i] && picked[i] == k;
                picked[i] += beyond;
                taken[i] = beyond ? z[first + k + 1][i] : taken[i];
            }
        for (int i = 0; i < rows; i++) {
            choice[i * h->groups + g] = picked[i];
            log_prob[i] += taken[i] - divisor[i];
        }
    }
}

/* New log-probabilities and entropies; what their derivatives need stays in p (categorical) or z (Gaussian: the standardised numbers). */
static void evaluate(const pe_head *h, const real *log_std, const samples *s, const int32_t *place, int rows, column *z, column *p,
                     column log_prob, column entropy)
{
    for (int i = 0; i < rows; i++)
        log_prob[i] = entropy[i] = 0;
    if (h->kind == GAUSSIAN) {
        for (int j = 0; j < h->groups; j++) {
            real inverse = pe_exp(-log_std[j]), offset = log_std[j] + HALF_LOG_TAU;
            for (int i = 0; i < rows; i++) {
                z[j][i] = (s->number[(ptrdiff_t)place[i] * h->groups + j] - z[j][i]) * inverse;
                log_prob[i] -= (real)0.5 * z[j][i] * z[j][i] + offset;
                entropy[i] += offset + (real)0.5;
            }
        }
        return;
    }
    column divisor;
    if (s->allowed)
        forbid(rows, head_outputs(h), s->allowed, place, z);
    for (int g = 0, first = 0; g < h->groups; first += h->sizes[g++]) {
        softmax(rows, h->sizes[g], (const column *)z + first, p + first, divisor);
        if (s->allowed)
            rule_out(rows, h->sizes[g], (const column *)z + first, p + first);
        for (int i = 0; i < rows; i++)
            log_prob[i] += z[first + s->choice[(ptrdiff_t)place[i] * h->groups + g]][i] - divisor[i];
        for (int k = first; k < first + h->sizes[g]; k++)
            for (int i = 0; i < rows; i++) {
                z[k][i] -= divisor[i]; /* the logarithm of the probability from here on */
                entropy[i] -= p[k][i] * z[k][i];
            }
    }
}

/* The value loss of each row, and its derivative by the value. */
static void value_loss(const pe_loss *loss, int rows, const column value, const column old, const column returns, column squared, column slope)
{
    real bound = (real)loss->value_clip;
    for (int i = 0; i < rows; i++) {
        real error = value[i] - returns[i];
        squared[i] = error * error;
        slope[i] = 2 * error;
    }
    if (loss->value_form == VALUE_CLAMPED)
        for (int i = 0; i < rows; i++) {
            slope[i] = squared[i] > bound ? 0 : slope[i];
            squared[i] = squared[i] > bound ? bound : squared[i];
        }
    if (loss->value_form == VALUE_CLIPPED)
        for (int i = 0; i < rows; i++) {
            real moved = value[i] - old[i], near = old[i] + between(moved, -bound, bound) - returns[i];
            int held = near * near > squared[i];
            slope[i] = !held ? slope[i] : moved > bound || moved < -bound ? 0 : 2 * near;
            squared[i] = held ? near * near : squared[i];
        }
}

void policy_loss(const pe_head *h, const real *log_std, const pe_loss *loss, const samples *s, const int32_t *place, int rows, const real *out,
                 int row, real mean, real scale, real count, real *d, real *d_log_std, double *statistics, real *workspace)
{
    int outputs = head_outputs(h);
    column *z = (column *)workspace, *p = z + outputs + 1, log_prob, entropy, push, slope, old_log_prob, advantage, old_value, returns;
    columns_of(rows, outputs + 1, out, row, z);
    evaluate(h, log_std, s, place, rows, z, p, log_prob, entropy);
    for (int i = 0; i < rows; i++) {
        old_log_prob[i] = s->log_prob[place[i]];
        advantage[i] = (s->advantage[place[i]] - mean) * scale;
        old_value[i] = s->value[place[i]];
        returns[i] = s->returns[place[i]];
    }
    real low = (real)(1 - loss->clip), high = (real)(1 + loss->clip), dual = (real)loss->dual_clip, weight = 1 / count;
    real kl_weight = (real)loss->kl_weight, value_weight = (real)loss->value_weight * weight, bonus = (real)loss->entropy_weight * weight;
    column statistic[STATISTICS];
    for (int i = 0; i < rows; i++) {
        real log_ratio = log_prob[i] - old_log_prob[i], ratio = pe_exp(log_ratio), clipped = between(ratio, low, high);
        real free = ratio * advantage[i], held = clipped * advantage[i], objective = smaller(free, held);
        real gain = held < free ? 0 : free; /* its derivative by the log-probability */
        if (dual > 0) {
            int bounded = advantage[i] < 0 && objective < dual * advantage[i];
            objective = bounded ? dual * advantage[i] : objective;
            gain = bounded ? 0 : gain;
        }
        real kl = ratio - 1 - log_ratio;
        push[i] = (kl_weight * (ratio - 1) - gain) * weight;
        statistic[POLICY_LOSS][i] = -objective;
        statistic[ENTROPY][i] = entropy[i];
        statistic[KL][i] = kl;
        statistic[CLIPPED][i] = clipped != ratio ? 1 : 0;
    }
    value_loss(loss, rows, z[outputs], old_value, returns, statistic[VALUE_LOSS], slope);
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < STATISTICS; k++)
            statistics[k] += (double)statistic[k][i];

    if (h->kind == GAUSSIAN)
        for (int j = 0; j < h->groups; j++) {
            real inverse = pe_exp(-log_std[j]), sum = 0;
            for (int i = 0; i < rows; i++) {
                sum += push[i] * (z[j][i] * z[j][i] - 1) - bonus;
                z[j][i] = push[i] * z[j][i] * inverse;
            }
            d_log_std[j] += sum;
        }
    else
        for (int g = 0, first = 0; g < h->groups; first += h->sizes[g++]) {
            column own = {0}; /* entropy of this group alone */
            for (int k = first; k < first + h->sizes[g]; k++)
                for (int i = 0; i < rows; i++)
                    own[i] -= p[k][i] * z[k][i];
            for (int k = first; k < first + h->sizes[g]; k++)
                for (int i = 0; i < rows; i++)
                    z[k][i] = p[k][i] * (bonus * (z[k][i] + own[i]) - push[i]);
            for (int i = 0; i < rows; i++)
                z[first + s->choice[(ptrdiff_t)place[i] * h->groups + g]][i] += push[i];
        }
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < outputs; k++)
            d[i * row + k] = z[k][i];
        d[i * row + outputs] = slope[i] * value_weight;
    }
}

void critic_loss(const pe_loss *loss, const samples *s, const int32_t *place, int rows, const real *value, real count, real *d, double *statistics)
{
    column now, old, returns, squared, slope;
    for (int i = 0; i < rows; i++) {
        now[i] = value[i];
        old[i] = s->value[place[i]];
        returns[i] = s->returns[place[i]];
    }
    value_loss(loss, rows, now, old, returns, squared, slope);
    for (int i = 0; i < rows; i++) {
        d[i] = slope[i] * (real)loss->value_weight * (1 / count);
        statistics[VALUE_LOSS] += (double)squared[i];
    }
}
