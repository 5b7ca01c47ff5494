/* A whole horizon in one go: a thread takes a block of environments and steps it to the end; nobody waits for anybody in between. */

enum { NOTHING, OBSERVATION, REWARD, COST, START, CHOICE };

typedef struct rollout {
    engine *e, *critic; /* of costs, or null */
    pe_rollout *r;
    int64_t block; /* environments of a block */
    atomic_llong next;
    atomic_llong failed; /* earliest step with a number that is not finite: no block goes beyond it */
    pthread_mutex_t lock;
} rollout;

/* A block of environments within a rollout. */
typedef struct piece {
    engine *e, *critic;
    pe_rollout *r;
    int64_t first; /* environment */
    int count, agents, rows;
    int64_t row, all; /* first row; rows of the whole rollout */
    real *workspace, *out, *policy_room, *critic_room;
    double action[BLOCK * MOST_ACTIONS];
    uint8_t alive[BLOCK], stuck[BLOCK]; /* who acted in this step; who was allowed no choice in it */
} piece;

static void normalise(const piece *p, int rows, const double *seen, real *x)
{
    int n = p->e->net.inputs;
    double clip = p->r->clip;
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < n; k++) {
            double y = (seen[i * n + k] - p->r->mean[k]) / p->r->deviation[k];
            x[i * n + k] = (real)(y > clip ? clip : y < -clip ? -clip : y);
        }
}

static int all_finite(int count, const double *x)
{
    double sum = 0; /* of x − x: 0, but NaN where one is infinite or NaN */
    for (int i = 0; i < count; i++)
        sum += x[i] - x[i];
    return sum == 0;
}

/* Of all faults the earliest counts, then that of the lowest row: the same one for any number of threads. */
static void fail(rollout *all, const piece *p, int what, int64_t t, int i)
{
    int64_t *fault = p->r->fault, row = p->row + i;
    pthread_mutex_lock(&all->lock);
    if (!fault[0] || t < fault[1] || (t == fault[1] && (row < fault[2] || (row == fault[2] && what < fault[0])))) {
        fault[0] = what;
        fault[1] = t;
        fault[2] = row;
        atomic_store(&all->failed, t);
    }
    pthread_mutex_unlock(&all->lock);
}

static void check(rollout *all, const piece *p, int what, int64_t t, int width, const double *x)
{
    if (all_finite(p->rows * width, x))
        return;
    int i = 0;
    while (i < p->rows * width - 1 && x[i] - x[i] == 0)
        i++;
    fail(all, p, what, t, i / width);
}

/* The masks of a block, 0 or 1; an agent that is left no choice in a group gets them all there, and must not act. */
static void masks(piece *p, uint8_t *allowed)
{
    const engine *e = p->e;
    const pe_env *env = p->r->env;
    env->allow_many(p->count, p->r->state + p->first * env->n_state, allowed);
    for (int i = 0; i < p->rows; i++) {
        p->stuck[i] = 0;
        for (int g = 0; g < e->head.groups; allowed += e->head.sizes[g++]) {
            int any = 0;
            for (int k = 0; k < e->head.sizes[g]; k++)
                any |= allowed[k] = allowed[k] != 0;
            if (!any)
                memset(allowed, p->stuck[i] = 1, (size_t)e->head.sizes[g]);
        }
    }
}

static void act(piece *p, int64_t t)
{
    engine *e = p->e;
    pe_rollout *r = p->r;
    int64_t at = t * p->all + p->row;
    int groups = e->head.groups, m = (int)r->env->n_action;
    uint32_t index[BLOCK];
    uint64_t step[BLOCK];
    for (int i = 0; i < p->rows; i++) {
        index[i] = (uint32_t)(p->row + i);
        step[i] = r->step[p->first + i / p->agents];
    }
    int32_t *choice = r->choice ? r->choice + at * groups : NULL;
    real *number = r->number ? r->number + at * groups : NULL;
    uint8_t *allowed = r->env->allow_many ? r->allowed + at * e->outputs : NULL;
    if (allowed)
        masks(p, allowed);
    policy_sample(&e->head, e->parameters + e->log_std, p->rows, p->out, e->row, r->seed, index, step, allowed, choice, number, r->log_prob + at,
                  p->policy_room);
    if (e->head.kind == CATEGORICAL && groups == 1)
        for (int i = 0; i < p->rows; i++)
            for (int j = 0; j < m; j++)
                p->action[i * m + j] = r->levels[choice[i] * m + j];
    else if (e->head.kind == CATEGORICAL)
        for (int i = 0; i < p->rows; i++)
            for (int j = 0, first = 0; j < m; first += e->head.sizes[j++])
                p->action[i * m + j] = r->levels[first + choice[i * m + j]];
    else
        for (int i = 0; i < p->rows; i++)
            for (int j = 0; j < m; j++) {
                double number_j = (double)number[i * m + j];
                p->action[i * m + j] = r->offset[j] + r->scale[j] * (r->squash ? tanh(number_j) : number_j);
            }
}

/* Values of the rows of a mask, at the observation as it is now; of costs too, where there is a critic of them. */
static void values(const piece *p, const uint8_t *wanted, real *value, real *cost_value)
{
    real costs[BLOCK];
    engine *e = p->e;
    int n = e->net.inputs, count = 0;
    int32_t place[BLOCK];
    real *x = p->out + (ptrdiff_t)BLOCK * e->row, *out = x + (ptrdiff_t)BLOCK * n;
    for (int i = 0; i < p->rows; i++)
        if (wanted[i]) {
            normalise(p, 1, p->r->observed + (p->row + i) * n, x + count * n);
            place[count++] = i;
        }
    if (!count)
        return;
    network_forward(&e->net, e->parameters, count, x, p->workspace, out);
    for (int i = 0; i < count; i++)
        value[place[i]] = out[i * e->row + e->outputs];
    if (!p->critic)
        return;
    network_forward(&p->critic->net, p->critic->parameters, count, x, p->critic_room, costs);
    for (int i = 0; i < count; i++)
        cost_value[place[i]] = costs[i];
}

/* Count the step, and find out which episodes end: `over` by environment. */
static void count_step(piece *p, int64_t t, uint8_t *over)
{
    pe_rollout *r = p->r;
    int64_t at = t * p->all + p->row;
    for (int k = 0; k < p->count; k++) {
        int64_t environment = p->first + k;
        r->step[environment]++;
        r->elapsed[environment]++;
        int late = r->env->max_steps && r->elapsed[environment] >= (int32_t)r->env->max_steps, gone = 1, any = 0;
        for (int i = k * p->agents; i < (k + 1) * p->agents; i++) {
            r->alive[at + i] = p->alive[i] != 0; /* an environment may say yes by any number; Python's bools are 0 and 1 */
            r->terminated[at + i] = r->terminated[at + i] != 0;
            if (!r->alive[at + i]) {
                r->reward[at + i] = r->cost[at + i] = 0;
                r->terminated[at + i] = 1;
            }
            gone &= r->terminated[at + i];
            any |= r->alive[at + i];
        }
        over[k] = late || (gone && any); /* a step in which nobody acted ends nothing */
        for (int i = k * p->agents; i < (k + 1) * p->agents; i++) {
            r->truncated[at + i] = over[k] && !r->terminated[at + i];
            r->episode_return[p->row + i] += r->reward[at + i];
            r->episode_cost[p->row + i] += r->cost[at + i];
            int ends = r->alive[at + i] && (r->terminated[at + i] || r->truncated[at + i]);
            r->finished_return[at + i] = ends ? r->episode_return[p->row + i] : NAN;
            r->finished_cost[at + i] = ends ? r->episode_cost[p->row + i] : NAN;
            r->finished_length[at + i] = ends ? r->elapsed[environment] : 0;
            if (over[k] || ends)
                r->episode_return[p->row + i] = r->episode_cost[p->row + i] = 0;
        }
        if (over[k])
            r->elapsed[environment] = 0;
    }
}

/* 0 where a fault at an earlier step ends it. */
static int step_piece(rollout *all, piece *p, int64_t t)
{
    engine *e = p->e;
    pe_rollout *r = p->r;
    const pe_env *env = r->env;
    int n = e->net.inputs;
    int64_t at = t * p->all + p->row;
    double *observed = r->observed + p->row * n;
    const uint32_t key[2] = {r->seed, STREAM_ENVIRONMENT};
    uint8_t over[BLOCK];

    if (atomic_load_explicit(&all->failed, memory_order_relaxed) < t)
        return 0;
    memcpy(r->observation + at * n, observed, sizeof(double) * (size_t)(p->rows * n));
    normalise(p, p->rows, observed, r->inputs + at * n);
    network_forward(&e->net, e->parameters, p->rows, r->inputs + at * n, p->workspace, p->out);
    if (p->critic)
        network_forward(&p->critic->net, p->critic->parameters, p->rows, r->inputs + at * n, p->critic_room, r->cost_value + at);
    for (int i = 0; i < p->rows; i++) {
        int goes_on = t && !r->terminated[at - p->all + i] && !r->truncated[at - p->all + i];
        r->value[at + i] = p->out[i * e->row + e->outputs];
        if (goes_on)
            r->final_value[at - p->all + i] = r->value[at + i];
        if (goes_on && p->critic)
            r->final_cost_value[at - p->all + i] = r->cost_value[at + i];
    }
    act(p, t);
    env->step_many(p->count, p->first, key, r->step + p->first, r->parameters ? r->parameters + p->first * env->n_parameters : NULL, p->action,
                   r->state + p->first * env->n_state, observed, r->reward + at, r->cost + at, r->terminated + at, p->alive);
    check(all, p, OBSERVATION, t, n, observed);
    check(all, p, REWARD, t, 1, r->reward + at);
    check(all, p, COST, t, 1, r->cost + at);
    for (int i = 0; env->allow_many && i < p->rows; i++)
        if (p->stuck[i] && p->alive[i])
            fail(all, p, CHOICE, t, i);
    count_step(p, t, over);
    int any = 0;
    for (int k = 0; k < p->count; k++)
        any |= over[k];
    for (int i = 0; i < p->rows; i++)
        r->final_value[at + i] = 0;
    for (int i = 0; p->critic && i < p->rows; i++)
        r->final_cost_value[at + i] = 0;
    if (any) {
        values(p, r->truncated + at, r->final_value + at, p->critic ? r->final_cost_value + at : NULL);
        env->reset_many(p->count, p->first, key, r->step + p->first, over, r->parameters ? r->parameters + p->first * env->n_parameters : NULL,
                        r->state + p->first * env->n_state, observed);
        check(all, p, START, t, n, observed);
    }
    return 1;
}

static void rollout_task(void *argument, int thread)
{
    rollout *all = argument;
    pe_rollout *r = all->r;
    piece p = {.e = all->e, .r = r, .agents = (int)r->env->agents};
    p.critic = all->critic;
    p.critic_room = all->critic ? all->critic->workspace[thread] : NULL;
    p.workspace = all->e->workspace[thread];
    p.policy_room = p.workspace + all->e->net.workspace;
    p.out = p.policy_room + policy_workspace(all->e->outputs);
    p.all = r->environments * p.agents;
    for (;;) {
        p.first = atomic_fetch_add(&all->next, all->block);
        if (p.first >= r->environments)
            return;
        p.count = (int)(r->environments - p.first < all->block ? r->environments - p.first : all->block);
        p.rows = p.count * p.agents;
        p.row = p.first * p.agents;
        int64_t t = 0;
        while (t < r->horizon && step_piece(all, &p, t))
            t++;
        if (t < r->horizon)
            continue;
        int64_t at = (r->horizon - 1) * p.all + p.row;
        uint8_t on[BLOCK];
        for (int i = 0; i < p.rows; i++)
            on[i] = !r->terminated[at + i] && !r->truncated[at + i];
        values(&p, on, r->final_value + at, p.critic ? r->final_cost_value + at : NULL);
    }
}

/* Fill the buffers; fault says what was NaN or infinite, and where. `critic`, of costs, has as many threads, or is null. */
API void pe_engine_rollout(engine *e, const real *flat, engine *critic, const real *critic_flat, pe_rollout *r)
{
    rollout all = {.e = e, .critic = critic, .r = r, .block = BLOCK / (int)r->env->agents, .failed = INT64_MAX};
    pthread_mutex_init(&all.lock, NULL);
    memset(r->fault, 0, sizeof r->fault);
    pack(e, flat, e->parameters);
    if (critic)
        pack(critic, critic_flat, critic->parameters);
    pool_run(e->pool, rollout_task, &all);
    pthread_mutex_destroy(&all.lock);
}

/* Start all environments of a rollout afresh. */
API void pe_engine_reset(engine *e, pe_rollout *r)
{
    (void)e;
    const uint32_t key[2] = {r->seed, STREAM_ENVIRONMENT};
    uint8_t mask[BLOCK];
    memset(mask, 1, sizeof mask);
    for (int64_t first = 0; first < r->environments; first += BLOCK) {
        int64_t count = r->environments - first < BLOCK ? r->environments - first : BLOCK;
        r->env->reset_many(count, first, key, r->step + first, mask, r->parameters ? r->parameters + first * r->env->n_parameters : NULL,
                           r->state + first * r->env->n_state, r->observed + first * r->env->agents * r->env->n_observation);
    }
}
