#include "pe_sac.h"

#include "pe_replay.c"
#include "pe_sac_engine.c"
#include "pe_sac_update.c"
#include "pe_sac_collect.c"

typedef struct sac_job {
    sac_engine *e;
    pe_sac *r;
    uint64_t began; /* ticks when the call began: later ones are thread 0's alone */
} sac_job;

/* Whether a turn of learning follows so many steps of each row. */
static int due(const pe_sac *r, uint64_t ticks)
{
    return r->updates > 0 && (!r->env || (ticks * (uint64_t)r->ring.rows > (uint64_t)r->warmup && ticks % (uint64_t)r->every == 0));
}

/* Between two turns of learning the other threads wait; what thread 0 writes meanwhile they read after the barrier, and before the next. */
static void sac_task(void *argument, int thread)
{
    const sac_job *job = argument;
    sac_engine *e = job->e;
    pe_sac *r = job->r;
    bench b;
    lay_bench(e, &b, e->workspace[thread]);
    for (int64_t t = 0; t < r->horizon;) {
        int64_t from = t++;
        while (t < r->horizon && !due(r, job->began + (uint64_t)t))
            t++;
        for (int64_t k = from; r->env && thread == 0 && k < t && !r->fault[0]; k++)
            sac_step(e, r, &b, k);
        pool_barrier(e->pool);
        if (r->fault[0] || !due(r, job->began + (uint64_t)t))
            return;
        int64_t limit = ring_limit(&r->ring);
        for (int32_t u = 0; u < r->updates; u++)
            sac_update(e, r, &b, limit, thread);
    }
}

/* `horizon` steps of every environment with the updates that they are due, or without environments `horizon` times `updates` of them.
 * 1, or 0 where there is no memory. */
API int32_t pe_sac_run(sac_engine *e, pe_sac *r)
{
    if (!room_for(e, r->batch))
        return 0;
    sac_pack(e, r->flat, e->parameters);
    sac_pack(e, r->first, e->first);
    sac_pack(e, r->second, e->second);
    mlp_transpose(&e->actor, e->parameters, e->transposes);
    for (int c = 0; c < 2; c++) {
        mlp_pack(&e->critic, r->target + c * e->critic.flat, e->target + c * e->critic.packed);
        mlp_transpose(&e->critic, critic_of(e, c), transposes_of(e, c));
    }
    memset(e->sums, 0, sizeof e->sums);
    memset(r->fault, 0, sizeof r->fault);
    r->updates_done = 0;
    atomic_store(&e->next[0], 0);
    sac_job job = {e, r, r->env ? *r->ticks : 0};
    pool_run(e->pool, sac_task, &job);
    sac_unpack(e, e->parameters, r->flat);
    sac_unpack(e, e->first, r->first);
    sac_unpack(e, e->second, r->second);
    for (int c = 0; c < 2; c++)
        mlp_unpack(&e->critic, e->target + c * e->critic.packed, r->target + c * e->critic.flat);
    for (int k = 0; k < SAC_STATISTICS; k++)
        r->statistics[k] = r->updates_done ? e->sums[k] / (double)r->updates_done : NAN;
    return 1;
}
