/* What an environment is to the native trainer: sizes, and two functions over many rows, or three. Python (numba), C, C++ and Rust can all give it.
 *
 * An environment is pure: all that changes lies in `state`, which its caller owns, saves and restores. It never resets itself and never
 * truncates: the trainer does both. Everything is double, rows are contiguous, one after the other (row-major).
 *
 * Randomness is counter-based: Philox4x32-10 (Salmon et al., 2011) with key (key[0], key[1]) and counter
 * (draw, environment, low half of step, high half of step), where `draw` numbers the draws of one call for one environment, from 0 in a
 * step and from 2^31 in a reset (the step after a reset has the same counter otherwise),
 * `environment` is first + i, and `step` is step[i], the steps that this environment has made since the training began. A draw gives four
 * 32-bit words; a uniform double in [0, 1) takes two of them, ((a >> 5) * 2^26 + (b >> 6)) / 2^53. Nothing depends on how rows are split
 * among threads.
 *
 * With agents > 1 an environment takes `agents` rows of observation, action, reward, cost, terminated and alive, side by side; state,
 * parameters and step stay one a environment, which is over when all its agents have terminated.
 */
#ifndef PE_ENV_H
#define PE_ENV_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PE_ENV_VERSION 2u

/* Start afresh the environments whose mask is not 0; state and observation of the others stay as they are. */
typedef void (*pe_reset_many)(int64_t n,                /* environments in this call */
                              int64_t first,            /* index of the first of them in the whole training */
                              const uint32_t *key,      /* (2,) seed and stream */
                              const uint64_t *step,     /* (n,) steps each has made since the training began */
                              const uint8_t *mask,      /* (n,) */
                              const double *parameters, /* (n, n_parameters); may be null where n_parameters is 0 */
                              double *state,            /* (n, n_state) */
                              double *observation);     /* (n, agents, n_observation) */

/* One step of every environment. `alive` says which agents acted in this step (1 throughout where an environment has no notion of it): one
 * whose last step this was did. An agent that did not act gets reward 0, cost 0 and terminated 1; its action is not looked at, nothing is
 * learnt from it, and it may act again later, in the same episode. A step in which nobody acted ends no episode. */
typedef void (*pe_step_many)(int64_t n, int64_t first, const uint32_t *key, const uint64_t *step, const double *parameters,
                             const double *action, /* (n, agents, n_action) */
                             double *state,        /* (n, n_state), before and after */
                             double *observation,  /* (n, agents, n_observation) out: what is seen after the step */
                             double *reward, double *cost,         /* (n, agents) out */
                             uint8_t *terminated, uint8_t *alive); /* (n, agents) out */

/* Which choices every agent may take next, in these states: those of one group, or of several, group after group, in the contract's order.
 * An agent that then acts must have one in each group. Others are never sampled, and get no gradient. */
typedef void (*pe_allow_many)(int64_t n, const double *state, /* (n, n_state) */
                              uint8_t *allowed);              /* (n, agents, n_choices) out: 1 or 0 */

typedef struct pe_env {
    uint32_t version; /* PE_ENV_VERSION */
    uint32_t size;    /* sizeof(pe_env) */
    uint32_t agents;
    uint32_t n_state;
    uint32_t n_observation; /* of one agent */
    uint32_t n_action;      /* of one agent */
    uint32_t n_parameters;
    uint32_t max_steps; /* the clock ends an episode after so many steps; 0: never */
    pe_reset_many reset_many;
    pe_step_many step_many;
    pe_allow_many allow_many; /* may be null: then all choices may be taken always */
    uint32_t n_choices;       /* of one agent, as allow_many writes them; 0 without it */
    uint32_t unused;
} pe_env;

/* A shared library holds one under this name. */
extern const pe_env pe_environment;

#ifdef __cplusplus
}
#endif

#endif
