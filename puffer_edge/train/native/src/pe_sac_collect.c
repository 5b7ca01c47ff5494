/* One step of every environment into the ring. One thread does it: a step costs far less than the update that follows. */

/* New matrices for the rows whose noise has served its time. */
static void renew_noise(const sac_engine *e, pe_sac *r, bench *b, int64_t row)
{
    int m = e->shape.numbers;
    if (r->age[row]++ < r->hold)
        return;
    r->age[row] = 1;
    for (int f = 0; f < e->width; f += BLOCK) {
        int count = e->width - f < BLOCK ? e->width - f : BLOCK;
        normals(count, m, r->seed, STREAM_HELD, (uint32_t)(row * e->width + f), r->step[row], b->now->noise);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < m; j++)
                r->noise[(row * e->width + f + i) * m + j] = (float)b->now->noise[j][i];
    }
}

/* Before the warm-up is over: uniform in −1 … 1. */
static void act_anyhow(const sac_engine *e, const pe_sac *r, int64_t first, int rows, said *s)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < e->shape.numbers; j += 4) {
            uint64_t step = r->step[first + i];
            words w = philox((uint32_t)j / 4, (uint32_t)(first + i), (uint32_t)step, (uint32_t)(step >> 32), r->seed, STREAM_WARMUP);
            for (int k = 0; k < 4 && j + k < e->shape.numbers; k++)
                s->action[j + k][i] = 2 * uniform(w.w[k]) - 1;
        }
}

static void act_by_policy(const sac_engine *e, pe_sac *r, bench *b, int64_t first, int rows, said *s)
{
    int n = e->actor.inputs, m = e->shape.numbers, top = e->actor.layers - 2;
    const dense *l = &e->actor.layer[top];
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < n; k++) {
            double y = (r->observed[(first + i) * n + k] - r->mean[k]) / r->deviation[k];
            b->x[i * n + k] = (real)(y > r->clip ? r->clip : y < -r->clip ? -r->clip : y);
        }
    mlp_forward(&e->actor, e->parameters, rows, b->x, &b->actor, b->out);
    if (!e->shape.state_noise) {
        distribution(e, b, rows, b->out, NULL, s);
        for (int i = 0; i < rows; i++) {
            column one[MOST_GROUPS];
            normals(1, m, r->seed, STREAM_ACTION, (uint32_t)(first + i), r->step[first + i], one);
            for (int j = 0; j < m; j++)
                s->action[j][i] = pe_tanh(s->mean[j][i] + pe_exp(s->log_std[j][i]) * one[j][0]);
        }
        return;
    }
    for (int i = 0; i < rows; i++) {
        renew_noise(e, r, b, first + i);
        const float *noise = r->noise + (first + i) * e->width * m;
        for (int j = 0; j < m; j++) {
            real u = b->out[i * m + j];
            for (int f = 0; f < e->width; f++)
                u += b->actor.out[top][i * l->stride + f] * pe_exp(e->parameters[e->spread + f * m + j]) * (real)noise[f * m + j];
            s->action[j][i] = pe_tanh(u);
        }
    }
}

static void sac_fault(pe_sac *r, int what, int64_t t, int64_t first, int rows, int width, const double *x)
{
    if (r->fault[0] || all_finite(rows * width, x))
        return;
    int i = 0;
    while (i < rows * width - 1 && x[i] - x[i] == 0)
        i++;
    r->fault[0] = what;
    r->fault[1] = t;
    r->fault[2] = first + i / width;
}

/* Count the step of a row and write it into the ring; whether its episode is over. */
static int note_step(const sac_engine *e, pe_sac *r, int64_t t, int64_t row, const said *s, int i, int terminated)
{
    int64_t out = t * r->ring.rows + row, at = row * r->ring.slots + r->ring.place[row] % r->ring.slots;
    int m = e->shape.numbers, n = e->actor.inputs;
    r->step[row]++;
    r->elapsed[row]++;
    int late = r->env->max_steps && r->elapsed[row] >= (int32_t)r->env->max_steps, over = terminated || late;
    for (int j = 0; j < m; j++)
        r->ring.action[at * m + j] = (float)s->action[j][i];
    r->ring.reward[at] = (float)r->reward[out];
    r->ring.cost[at] = (float)r->cost[out];
    r->ring.kind[at] = (uint8_t)(terminated ? TERMINATED : late ? TRUNCATED : STEP);
    ring_see(&r->ring, row, n, r->observed + row * n);
    r->episode_return[row] += r->reward[out];
    r->episode_cost[row] += r->cost[out];
    r->finished_return[out] = over ? r->episode_return[row] : NAN;
    r->finished_cost[out] = over ? r->episode_cost[row] : NAN;
    r->finished_length[out] = over ? r->elapsed[row] : 0;
    if (over) {
        r->episode_return[row] = r->episode_cost[row] = 0;
        r->elapsed[row] = 0;
        if (e->shape.state_noise)
            r->age[row] = r->hold;
    }
    return over;
}

static void sac_step(sac_engine *e, pe_sac *r, bench *b, int64_t t)
{
    const pe_env *env = r->env;
    const uint32_t key[2] = {r->seed, STREAM_ENVIRONMENT};
    int n = e->actor.inputs, m = e->shape.numbers;
    double action[BLOCK * MOST_GROUPS];
    uint8_t terminated[BLOCK], alive[BLOCK], over[BLOCK];
    said *s = b->next;
    int warm = *r->ticks * (uint64_t)r->ring.rows >= (uint64_t)r->warmup;
    for (int64_t first = 0; first < r->ring.rows; first += BLOCK) {
        int rows = r->ring.rows - first < BLOCK ? (int)(r->ring.rows - first) : BLOCK, any = 0;
        double *observed = r->observed + first * n, *reward = r->reward + t * r->ring.rows + first, *cost = r->cost + t * r->ring.rows + first;
        double *state = r->state + first * env->n_state;
        const double *parameters = r->parameters ? r->parameters + first * env->n_parameters : NULL;
        memcpy(r->seen + (t * r->ring.rows + first) * n, observed, sizeof(double) * (size_t)(rows * n));
        if (warm)
            act_by_policy(e, r, b, first, rows, s);
        else
            act_anyhow(e, r, first, rows, s);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < m; j++)
                action[i * m + j] = r->offset[j] + r->scale[j] * (double)s->action[j][i];
        env->step_many(rows, first, key, r->step + first, parameters, action, state, observed, reward, cost, terminated, alive);
        sac_fault(r, OBSERVATION, t, first, rows, n, observed);
        sac_fault(r, REWARD, t, first, rows, 1, reward);
        sac_fault(r, COST, t, first, rows, 1, cost);
        for (int i = 0; i < rows; i++)
            any |= over[i] = (uint8_t)note_step(e, r, t, first + i, s, i, terminated[i] != 0);
        if (!any)
            continue;
        env->reset_many(rows, first, key, r->step + first, over, parameters, state, observed);
        sac_fault(r, START, t, first, rows, n, observed);
        for (int i = 0; i < rows; i++)
            if (over[i])
                ring_see(&r->ring, first + i, n, observed + i * n);
    }
    ++*r->ticks;
}

/* Start all environments afresh, their first observations in the ring's first places. */
API void pe_sac_start(sac_engine *e, pe_sac *r)
{
    const uint32_t key[2] = {r->seed, STREAM_ENVIRONMENT};
    int n = e->actor.inputs;
    uint8_t mask[BLOCK];
    memset(mask, 1, sizeof mask);
    memset(r->fault, 0, sizeof r->fault);
    for (int64_t first = 0; first < r->ring.rows; first += BLOCK) {
        int rows = r->ring.rows - first < BLOCK ? (int)(r->ring.rows - first) : BLOCK;
        const double *parameters = r->parameters ? r->parameters + first * r->env->n_parameters : NULL;
        r->env->reset_many(rows, first, key, r->step + first, mask, parameters, r->state + first * r->env->n_state, r->observed + first * n);
        sac_fault(r, START, 0, first, rows, n, r->observed + first * n);
        for (int i = 0; i < rows; i++)
            ring_see(&r->ring, first + i, n, r->observed + (first + i) * n);
    }
}
