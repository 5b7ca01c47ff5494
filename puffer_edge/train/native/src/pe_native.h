/* What Python sees of the native trainer: an engine, and structures of pointers into numpy's arrays, which own all state. */
#ifndef PE_NATIVE_H
#define PE_NATIVE_H

#include "pe_env.h"
#include "pe_policy.h"

#define PE_NATIVE_VERSION 6
#define API __attribute__((visibility("default")))
#define MOST_ACTIONS 64 /* numbers of an action */
#define SHARDS 8 /* parts of a sum, added in their order: the bits do not depend on the number of threads */

typedef struct engine engine;

/* T steps of all environments, rows = environments × agents. Arrays are (T, rows, …) unless said otherwise. */
typedef struct pe_rollout {
    const pe_env *env;
    int64_t horizon, environments;
    uint32_t seed;
    int32_t squash; /* a Gaussian's numbers go through tanh on their way to the actuator */
    /* the environments now */
    double *state;            /* (environments, n_state) */
    const double *parameters; /* (environments, n_parameters) */
    double *observed;         /* (rows, n) */
    uint64_t *step;           /* (environments,) steps since the training began */
    int32_t *elapsed;         /* (environments,) steps in the episode */
    double *episode_return, *episode_cost; /* (rows,) of the episode so far, or since the agent began anew in it */
    /* constants */
    const double *mean, *deviation; /* (n,) of the normaliser */
    double clip;                    /* what it gives is kept within ± this */
    const double *levels;           /* categorical: the numbers of each choice; one group: (choices, m), several: one a choice */
    const double *scale, *offset;   /* Gaussian: (m,) */
    /* out */
    double *observation;
    real *inputs;
    int32_t *choice;
    real *number;
    real *log_prob, *value, *final_value, *cost_value, *final_cost_value; /* the last two of a critic of costs, if there is one */
    double *reward, *cost;
    uint8_t *terminated, *truncated, *alive; /* alive: it acted; else reward and cost are 0, and terminated is 1 */
    uint8_t *allowed;                        /* (T, rows, outputs) what could be chosen; unused where all may */
    double *finished_return, *finished_cost; /* NaN where no episode ended */
    int32_t *finished_length;                /* 0 there */
    int64_t fault[3]; /* what was not finite (0: nothing, 1: observation, 2: reward, 3: cost, 4: first observation of an episode; 5: an agent
                         acted that was allowed no choice), step, row */
} pe_rollout;

typedef struct pe_advantages {
    int64_t horizon, rows;
    double discount, trace_decay, ratio_clip, trace_clip; /* the clips bound ρ and c of V-trace */
    double reward_scale;                                  /* rewards are divided by it */
    const double *reward;
    const real *value, *final_value, *ratio; /* ratio: null for 1 throughout */
    const uint8_t *terminated, *truncated;
    const uint8_t *alive;      /* 0 where the agent did not act: nothing goes through there to earlier steps; null for 1 throughout */
    real *advantage, *returns; /* out */
} pe_advantages;

typedef struct pe_update {
    int64_t samples, minibatch;
    int32_t epochs;
    uint32_t seed;
    uint64_t update; /* how many came before: with the seed it names the shuffles */
    int32_t normalize_advantage;
    int32_t unused;
    double learning_rate, beta1, beta2, epsilon, max_grad_norm;
    double stop_kl; /* ≤ 0: never; else the epochs end after one whose last minibatch exceeds it */
    pe_loss loss;
    const real *inputs;
    const real *log_prob, *value, *advantage, *returns;
    const int32_t *choice;
    const real *number;
    const uint8_t *allowed; /* (samples, outputs); null where all could be chosen */
    real *parameters, *first, *second; /* flat; the moments of Adam */
    int64_t *adam_steps;               /* (1,) */
    double statistics[STATISTICS + 1]; /* out: means over all minibatches, then the mean norm of the gradient */
    double epoch_kl[64];               /* out: mean KL of each epoch */
    int32_t epochs_done;
    int32_t unused_too;
} pe_update;

#endif
