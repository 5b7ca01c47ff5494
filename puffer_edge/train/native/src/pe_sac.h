/* Soft actor-critic: environments, replay and updates in one call. */
#ifndef PE_SAC_H
#define PE_SAC_H

#include "pe_batch.h"
#include "pe_env.h"
#include "pe_philox.h"

enum { STREAM_REPLAY = 3, STREAM_NEXT, STREAM_NOW, STREAM_HELD, STREAM_WARMUP };
enum { NO_STEP, STEP, TERMINATED, TRUNCATED }; /* what a place of the ring holds */
enum { CRITIC_LOSS, ACTOR_LOSS, ENTROPY_LOSS, ENTROPY_NOW, TEMPERATURE, VALUE_NOW, SAC_STATISTICS };

typedef struct sac_engine sac_engine;

typedef struct pe_sac_shape {
    int32_t inputs, numbers; /* of an observation, of an action */
    int32_t hidden, critic_hidden; /* layers */
    int32_t widths[MOST_LAYERS - 1], critic_widths[MOST_LAYERS - 1];
    int32_t activation;
    int32_t state_noise; /* noise is a function of the actor's last hidden layer (gSDE) */
} pe_sac_shape;

/* The ring of a row holds its observations in the order in which they were seen, (rows, slots, …): the one that follows a step is the next
 * place's. The last observation of an episode has a place of its own, on which no step is made; so has, for now, the latest one. */
typedef struct pe_ring {
    int64_t rows, slots;
    float *observation; /* physical */
    float *action;      /* what the policy proposed, −1 … 1 */
    float *reward, *cost;
    uint8_t *kind;
    int64_t *place; /* (rows,) places written; the latest observation's is this modulo slots */
} pe_ring;

typedef struct pe_sac {
    const pe_env *env; /* null: updates alone */
    pe_ring ring;
    int64_t horizon, batch;
    int64_t warmup; /* steps, of all rows together, that are drawn uniformly and from which nothing is learnt yet */
    int32_t every, updates, n_step, hold;
    uint32_t seed;
    int32_t unused;
    double discount, follow, target_entropy, beta1, beta2, epsilon;
    double actor_rate, critic_rate, temperature_rate;
    /* the environments now, one a row */
    double *state;
    const double *parameters;
    double *observed;
    uint64_t *step;
    int32_t *elapsed;
    double *episode_return, *episode_cost;
    float *noise; /* (rows, width, numbers) of gSDE */
    int32_t *age; /* (rows,) steps that it has served */
    uint64_t *ticks;   /* (1,) steps of each row since the training began */
    uint64_t *drawn;   /* (1,) batches drawn */
    /* constants */
    const double *mean, *deviation;
    double clip;
    const double *scale, *offset;
    /* flat: the actor, gSDE's log_std (width, numbers), two critics, the logarithm of the temperature */
    real *flat, *first, *second;
    real *target; /* the critics' targets */
    int64_t *adam_steps;
    /* out, (horizon, rows) */
    double *seen; /* (horizon, rows, inputs) observations acted on */
    double *reward, *cost;
    double *finished_return, *finished_cost;
    int32_t *finished_length;
    double statistics[SAC_STATISTICS]; /* means over the updates of this call */
    int64_t updates_done;
    int64_t fault[3];
} pe_sac;

#endif
