/* Generalised advantage estimation (Schulman et al., 2016) with the clipped importance weights of V-trace (Espeholt et al., 2018):
 *
 *   δ[t] = ρ[t] · (r[t] + γ V'[t] − V[t]),  A[t] = δ[t] + γ λ c[t] A[t+1],  ρ = min(ratio, ratio_clip),  c = min(ratio, trace_clip).
 *
 * reward[t] is what the action taken at observation[t] earned. V' is 0 after termination and final_value[t] else; both kinds of end cut
 * the carry, and so does a step in which the agent did not act. With a ratio of 1 and clips of at least 1 it is GAE. */

typedef struct gae {
    engine *e;
    const pe_advantages *a;
} gae;

static void advantages_task(void *argument, int thread)
{
    const pe_advantages *a = ((gae *)argument)->a;
    int threads = pool_threads(((gae *)argument)->e->pool);
    enum { COLUMNS = 64 };
    double carry[COLUMNS];
    for (int64_t from = (int64_t)thread * COLUMNS; from < a->rows; from += (int64_t)threads * COLUMNS) {
        int columns = a->rows - from < COLUMNS ? (int)(a->rows - from) : COLUMNS;
        memset(carry, 0, sizeof carry);
        for (int64_t t = a->horizon - 1; t >= 0; t--)
            for (int i = 0; i < columns; i++) {
                int64_t at = t * a->rows + from + i;
                double ratio = a->ratio ? (double)a->ratio[at] : 1.0;
                double rho = ratio > a->ratio_clip ? a->ratio_clip : ratio, trace = ratio > a->trace_clip ? a->trace_clip : ratio;
                double value = (double)a->value[at], after = a->terminated[at] ? 0.0 : (double)a->final_value[at];
                double delta = rho * (a->reward[at] / a->reward_scale + a->discount * after - value);
                double keep = a->terminated[at] | a->truncated[at] ? 0.0 : a->discount * a->trace_decay * trace;
                carry[i] = a->alive && !a->alive[at] ? 0.0 : delta + keep * carry[i];
                a->advantage[at] = (real)carry[i];
                a->returns[at] = (real)(carry[i] + value);
            }
    }
}

API void pe_engine_advantages(engine *e, const pe_advantages *a)
{
    gae g = {e, a};
    pool_run(e->pool, advantages_task, &g);
}
