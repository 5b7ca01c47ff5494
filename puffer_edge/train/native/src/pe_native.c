/* The native trainer: one translation unit, built once for each instruction set. */
#include "pe_native.h"

#include <stdio.h>
#include <stdlib.h>

#include "pe_network.c"
#include "pe_philox.h"
#include "pe_policy.c"
#include "pe_pool.c"

struct engine {
    pool *pool;
    network net;
    pe_head head;
    int outputs;                /* of the policy */
    int row;                    /* outputs of all networks */
    ptrdiff_t flat, packed;     /* numbers, log_std with them */
    ptrdiff_t log_std;          /* its place in the packed form */
    real *parameters, *transposes;
    real *first, *second;       /* Adam's moments, packed */
    real *gradient;             /* (SHARDS, packed) */
    real **workspace;           /* one a thread */
    int32_t *order;             /* a shuffle */
    int64_t room;               /* samples that order has room for */
};

static real *numbers(ptrdiff_t count)
{
    void *memory = NULL;
    size_t bytes = ROUND_UP(sizeof(real) * (size_t)(count > 0 ? count : 1), 64);
    if (posix_memalign(&memory, 64, bytes))
        return NULL;
    memset(memory, 0, bytes);
    return memory;
}

static ptrdiff_t block_workspace(const engine *e)
{
    return e->net.workspace + policy_workspace(e->outputs) + (ptrdiff_t)BLOCK * (2 * e->row + e->net.inputs) + 64;
}

API void pe_engine_free(engine *e)
{
    if (!e)
        return;
    for (int t = 0; e->workspace && e->pool && t < pool_threads(e->pool); t++)
        free(e->workspace[t]);
    free(e->workspace);
    pool_free(e->pool);
    free(e->parameters);
    free(e->transposes);
    free(e->first);
    free(e->second);
    free(e->gradient);
    free(e->order);
    free(e);
}

/* A new engine, or NULL and what is wrong in `says`. */
API engine *pe_engine_new(int32_t threads, const pe_networks *networks, const pe_head *head, char *says, int32_t room)
{
    engine *e = calloc(1, sizeof *e);
    const char *wrong = e ? network_plan(&e->net, networks) : "memory";
    if (!wrong) {
        e->head = *head;
        int named = head->kind == NO_POLICY ? head->groups == 0
                                            : (head->kind == CATEGORICAL || head->kind == GAUSSIAN) && head->groups >= 1 && head->groups <= MOST_GROUPS;
        for (int g = 0; named && head->kind == CATEGORICAL && g < head->groups; g++)
            named = head->sizes[g] >= 1 && head->sizes[g] <= MOST_OUTPUTS;
        e->outputs = named ? head_outputs(head) : 0;
        e->row = e->net.outputs;
        wrong = !named || e->outputs > MOST_OUTPUTS || e->row != e->outputs + 1 ? "a head that fits the networks" : NULL;
    }
    if (!wrong) {
        int spread = head->kind == GAUSSIAN ? head->groups : 0;
        e->flat = e->net.flat + spread;
        e->log_std = e->net.packed;
        e->packed = ROUND_UP(e->net.packed + spread, LANES);
        e->parameters = numbers(e->packed);
        e->transposes = numbers(e->net.transposes);
        e->first = numbers(e->packed);
        e->second = numbers(e->packed);
        e->gradient = numbers(SHARDS * e->packed);
        e->workspace = calloc((size_t)(threads > 0 ? threads : 1), sizeof(real *));
        e->pool = pool_new(threads);
        wrong = e->pool ? NULL : "threads that the system grants";
        for (int t = 0; !wrong && t < threads; t++)
            if (!e->workspace || !(e->workspace[t] = numbers(block_workspace(e))))
                wrong = "memory";
        if (!e->parameters || !e->transposes || !e->first || !e->second || !e->gradient)
            wrong = "memory";
    }
    if (wrong) {
        snprintf(says, (size_t)room, "%s", wrong);
        pe_engine_free(e);
        return NULL;
    }
    return e;
}

API int64_t pe_engine_flat(const engine *e) { return e->flat; }

static void pack(const engine *e, const real *flat, real *packed)
{
    network_pack(&e->net, flat, packed);
    memcpy(packed + e->log_std, flat + e->net.flat, sizeof(real) * (size_t)(e->flat - e->net.flat));
}

static void unpack(const engine *e, const real *packed, real *flat)
{
    network_unpack(&e->net, packed, flat);
    memcpy(flat + e->net.flat, packed + e->log_std, sizeof(real) * (size_t)(e->flat - e->net.flat));
}

#include "pe_advantages.c"
#include "pe_gradient.c"
#include "pe_moments.c"
#include "pe_rollout.c"
#include "pe_update.c"

#include "pe_batch.c"
#include "pe_cells.c"
#include "pe_sac.c"

API int32_t pe_native_version(void) { return PE_NATIVE_VERSION; }
API int32_t pe_native_env_version(void) { return PE_ENV_VERSION; }
API int32_t pe_native_real(void) { return (int32_t)sizeof(real); }
API int32_t pe_native_vector(void) { return PE_BYTES; }
API void pe_native_philox(const uint32_t *counter, const uint32_t *key, uint32_t *out)
{
    words w = philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
    memcpy(out, w.w, sizeof w.w);
}

/* 0: portable, 1: AVX2 with FMA, 2: AVX-512 too. */
API int32_t pe_native_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bw")
               ? 2
               : 1;
#else
    return 0;
#endif
}

/* exp, log, tanh, and sine and cosine of a turn, as the trainer computes them. */
API void pe_native_functions(int64_t n, const real *x, real *e, real *l, real *t, real *sine, real *cosine)
{
    for (int64_t i = 0; i < n; i++) {
        e[i] = pe_exp(x[i]);
        l[i] = pe_log(x[i]);
        t[i] = pe_tanh(x[i]);
        pe_turn(x[i], &sine[i], &cosine[i]);
    }
}
