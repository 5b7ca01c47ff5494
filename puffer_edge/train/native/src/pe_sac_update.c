/* One gradient step of SAC: what has to do with a row alone, and then what has to do with a parameter alone. */

/* Standard normal numbers, m a row, four from each counter (number / 4, index, step). */
static void normals(int rows, int m, uint32_t seed, uint32_t stream, uint32_t index, uint64_t step, column *out)
{
    column radius[2], turn[2];
    for (int first = 0; first < m; first += 4) {
        for (int i = 0; i < rows; i++) {
            words w = philox((uint32_t)first / 4, index + (uint32_t)i, (uint32_t)step, (uint32_t)(step >> 32), seed, stream);
            for (int pair = 0; pair < 2; pair++) {
                radius[pair][i] = ((real)(w.w[2 * pair] >> 8) + 1) * (real)(1.0 / 16777216.0); /* in (0, 1] */
                turn[pair][i] = uniform(w.w[2 * pair + 1]);
            }
        }
        for (int pair = 0; pair < 2 && first + 2 * pair < m; pair++) {
            int both = first + 2 * pair + 1 < m;
            for (int i = 0; i < rows; i++) { /* Box and Muller, 1958 */
                real sine, cosine, length = pe_sqrt(-2 * pe_log(radius[pair][i]));
                pe_turn(turn[pair][i], &sine, &cosine);
                out[first + 2 * pair][i] = length * cosine;
                if (both)
                    out[first + 2 * pair + 1][i] = length * sine;
            }
        }
    }
}

/* exp(2 · log_std) of gSDE, (m, width). */
static void squared_spread(const sac_engine *e, real *out)
{
    int m = e->shape.numbers;
    ptrdiff_t row = spaced(e->width);
    memset(out, 0, sizeof(real) * (size_t)(m * row));
    for (int f = 0; f < e->width; f++)
        for (int j = 0; j < m; j++)
            out[j * row + f] = pe_exp(2 * e->parameters[e->spread + f * m + j]);
}

/* The actor's distribution at the rows of its outputs; features are the last hidden layer's. */
static void distribution(const sac_engine *e, const bench *b, int rows, const real *out, const real *features, said *s)
{
    int m = e->shape.numbers, outputs = e->actor.outputs;
    const dense *top = &e->actor.layer[e->actor.layers - 2];
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++) {
            s->mean[j][i] = out[i * outputs + j];
            if (!e->shape.state_noise) {
                real wide = out[i * outputs + m + j];
                s->log_std[j][i] = between(wide, LOWEST_LOG_STD, HIGHEST_LOG_STD);
                s->bounded[j][i] = wide < LOWEST_LOG_STD || wide > HIGHEST_LOG_STD;
            }
        }
    if (!e->shape.state_noise)
        return;
    for (int i = 0; i < rows; i++) {
        for (int f = 0; f < top->columns; f++)
            b->squares[f] = features[i * top->stride + f] * features[i * top->stride + f];
        for (int j = 0; j < m; j++)
            s->variance[j][i] = dot(top->columns, b->squares, b->spread + j * spaced(e->width)) + LEAST_VARIANCE;
    }
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++)
            s->log_std[j][i] = (real)0.5 * pe_log(s->variance[j][i]);
}

/* a = tanh(mean + σ·noise), and its log-density: log N(noise) − log σ − log(1 − a²), the last as 2·(log 2 − u − softplus(−2u)), which does
 * not lose its digits where a rounds to 1. */
static void act_by_noise(const sac_engine *e, int rows, said *s)
{
    for (int i = 0; i < rows; i++)
        s->log_prob[i] = 0;
    for (int j = 0; j < e->shape.numbers; j++)
        for (int i = 0; i < rows; i++) {
            real u = s->mean[j][i] + pe_exp(s->log_std[j][i]) * s->noise[j][i], size = u < 0 ? -u : u;
            real softplus = pe_log(1 + pe_exp(-2 * size)) + (u < 0 ? -2 * u : 0);
            s->action[j][i] = pe_tanh(u);
            s->log_prob[i] -= (real)0.5 * s->noise[j][i] * s->noise[j][i] + s->log_std[j][i] + HALF_LOG_TAU + 2 * (LOG_2 - u - softplus);
        }
}

/* Normalised observation at a place of the ring. */
static void look_back(const pe_sac *r, int n, int64_t at, real *x)
{
    for (int k = 0; k < n; k++) {
        double y = ((double)r->ring.observation[at * n + k] - r->mean[k]) / r->deviation[k];
        x[k] = (real)(y > r->clip ? r->clip : y < -r->clip ? -r->clip : y);
    }
}

static void join(int rows, int n, int m, const real *x, const said *s, real *pair)
{
    for (int i = 0; i < rows; i++) {
        memcpy(pair + i * (n + m), x + i * n, sizeof(real) * (size_t)n);
        for (int j = 0; j < m; j++)
            pair[i * (n + m) + n + j] = s->action[j][i];
    }
}

static const real *critic_of(const sac_engine *e, int c) { return e->parameters + e->critics + c * e->critic.packed; }

static real *transposes_of(const sac_engine *e, int c) { return e->transposes + e->actor.transposes + c * e->critic.transposes; }

/* y = r + γ^k (min Q'(s', a') − α log π(a'|s')), and (Q − y)² with its derivative, for rows from `at` on. */
static void learn_values(sac_engine *e, const pe_sac *r, bench *b, int64_t at, int rows, int64_t limit, real temperature)
{
    int n = e->actor.inputs, m = e->shape.numbers;
    real reward[BLOCK], weight[BLOCK], count = (real)r->batch;
    for (int i = 0; i < rows; i++) {
        sampled s = draw_sample(&r->ring, limit, r->n_step, r->discount, r->seed, (uint32_t)(at + i), *r->drawn);
        real *pair = e->pair + (at + i) * (n + m);
        look_back(r, n, s.from, e->x + (at + i) * n);
        look_back(r, n, s.to, b->x + i * n);
        memcpy(pair, e->x + (at + i) * n, sizeof(real) * (size_t)n);
        for (int j = 0; j < m; j++)
            pair[n + j] = (real)r->ring.action[s.from * m + j];
        reward[i] = (real)s.reward;
        weight[i] = (real)s.weight;
    }
    const real *features = b->actor.out[e->actor.layers - 2];
    mlp_forward(&e->actor, e->parameters, rows, b->x, &b->actor, b->out);
    distribution(e, b, rows, b->out, features, b->next);
    normals(rows, m, r->seed, STREAM_NEXT, (uint32_t)at, *r->drawn, b->next->noise);
    act_by_noise(e, rows, b->next);
    join(rows, n, m, b->x, b->next, b->pair);
    for (int c = 0; c < 2; c++)
        mlp_forward(&e->critic, e->target + c * e->critic.packed, rows, b->pair, &b->critic[0], b->value[c]);
    for (int i = 0; i < rows; i++)
        reward[i] += weight[i] * (smaller(b->value[0][i], b->value[1][i]) - temperature * b->next->log_prob[i]);
    for (int i = 0; i < rows; i++)
        e->statistic[CRITIC_LOSS * r->batch + at + i] = e->statistic[VALUE_NOW * r->batch + at + i] = 0;
    for (int c = 0; c < 2; c++) {
        trail t = trail_at(&e->critic, &e->critic_trail[c], at);
        real *d = e->critic_d[c] + at;
        mlp_forward(&e->critic, critic_of(e, c), rows, e->pair + at * (n + m), &t, d);
        for (int i = 0; i < rows; i++) {
            real error = d[i] - reward[i];
            e->statistic[CRITIC_LOSS * r->batch + at + i] += (real)0.5 * error * error;
            e->statistic[VALUE_NOW * r->batch + at + i] += (real)0.5 * d[i];
            d[i] = error / count;
        }
        mlp_backward(&e->critic, critic_of(e, c), transposes_of(e, c), rows, d, &t);
    }
}

/* The derivative of min Q by the action: only the smaller critic's rows go back, side by side. */
static void slopes(const sac_engine *e, bench *b, int rows)
{
    const mlp *net = &e->critic;
    int n = e->actor.inputs, m = e->shape.numbers, tops = net->layers - 2;
    const dense *bottom = &net->layer[0];
    for (int c = 0; c < 2; c++) {
        int32_t place[BLOCK];
        int count = 0;
        for (int i = 0; i < rows; i++)
            if ((b->value[1][i] < b->value[0][i]) == c)
                place[count++] = i;
        for (int i = 0; i < count; i++) {
            b->d[i] = 1;
            for (int k = 0; k <= tops; k++) { /* places grow, so that what is moved to the front is not needed any more */
                ptrdiff_t row = net->layer[k].stride;
                if (place[i] != i)
                    memcpy(b->critic[c].out[k] + i * row, b->critic[c].out[k] + place[i] * row, sizeof(real) * (size_t)row);
            }
        }
        mlp_backward(net, critic_of(e, c), transposes_of(e, c), count, b->d, &b->critic[c]);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < m; j++)
                b->slope[place[i] * m + j] =
                    dot(bottom->columns, b->critic[c].delta[0] + i * bottom->stride, critic_of(e, c) + bottom->weight + (n + j) * bottom->stride);
    }
}

/* α log π(ã|s) − min Q(s, ã), and its derivative by the actor's outputs, for rows from `at` on. */
static void learn_actions(sac_engine *e, const pe_sac *r, bench *b, int64_t at, int rows, real temperature)
{
    int n = e->actor.inputs, m = e->shape.numbers, outputs = e->actor.outputs;
    trail t = trail_at(&e->actor, &e->actor_trail, at);
    said *s = b->now;
    mlp_forward(&e->actor, e->parameters, rows, e->x + at * n, &t, b->out);
    distribution(e, b, rows, b->out, t.out[e->actor.layers - 2], s);
    normals(rows, m, r->seed, STREAM_NOW, (uint32_t)at, *r->drawn, s->noise);
    act_by_noise(e, rows, s);
    join(rows, n, m, e->x + at * n, s, b->pair);
    for (int c = 0; c < 2; c++)
        mlp_forward(&e->critic, critic_of(e, c), rows, b->pair, &b->critic[c], b->value[c]);
    slopes(e, b, rows);
    real *d = e->actor_d + at * outputs, scale = 1 / (real)r->batch;
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++) {
            real a = s->action[j][i];
            real by_sum = temperature * 2 * a - b->slope[i * m + j] * (1 - a * a);
            real by_log_std = by_sum * pe_exp(s->log_std[j][i]) * s->noise[j][i] - temperature;
            d[i * outputs + j] = by_sum * scale;
            if (e->shape.state_noise)
                e->spread_d[(at + i) * m + j] = by_log_std * scale / s->variance[j][i];
            else
                d[i * outputs + m + j] = s->bounded[j][i] ? 0 : by_log_std * scale;
        }
    for (int i = 0; i < rows; i++) {
        e->statistic[ACTOR_LOSS * r->batch + at + i] = temperature * s->log_prob[i] - smaller(b->value[0][i], b->value[1][i]);
        e->statistic[ENTROPY_NOW * r->batch + at + i] = -s->log_prob[i];
    }
    mlp_backward(&e->actor, e->parameters, e->transposes, rows, d, &t);
}

static stepping stepping_of(const pe_sac *r, double rate, double follow)
{
    double steps = (double)*r->adam_steps;
    return (stepping){(real)(rate / (1 - pow(r->beta1, steps))), (real)(1 / sqrt(1 - pow(r->beta2, steps))), (real)r->beta1, (real)(1 - r->beta1),
                      (real)r->beta2,                            (real)(1 - r->beta2),                       (real)r->epsilon, (real)follow};
}

/* gSDE's log_std: Σ over rows of d · feature² · exp(2 log_std). */
static void step_spread(sac_engine *e, const pe_sac *r, const bench *b, const stepping *s)
{
    int m = e->shape.numbers, top = e->actor.layers - 2;
    const dense *l = &e->actor.layer[top];
    for (int j = 0; j < m; j++) {
        memset(b->squares, 0, sizeof(real) * (size_t)l->columns);
        for (int64_t i = 0; i < r->batch; i++) {
            const real *feature = e->actor_trail.out[top] + i * l->stride;
            real d = e->spread_d[i * m + j];
            for (int f = 0; f < l->columns; f++)
                b->squares[f] += d * (feature[f] * feature[f]);
        }
        for (int f = 0; f < e->width; f++) {
            ptrdiff_t at = e->spread + f * m + j;
            real g = b->squares[f] * b->spread[j * spaced(e->width) + f];
            step_numbers(1, &g, s, e->parameters + at, e->first + at, e->second + at, NULL);
        }
    }
}

/* Means of the batch, and the temperature's step: J = −log α · (mean log π + target), whose derivative is entropy − target. */
static void conclude(sac_engine *e, pe_sac *r)
{
    double mean[SAC_STATISTICS] = {0};
    for (int k = 0; k < SAC_STATISTICS; k++) {
        for (int64_t i = 0; i < r->batch && k != ENTROPY_LOSS && k != TEMPERATURE; i++)
            mean[k] += (double)e->statistic[k * r->batch + i];
        mean[k] /= (double)r->batch;
    }
    real *log_temperature = e->parameters + e->temperature;
    mean[TEMPERATURE] = (double)pe_exp(*log_temperature);
    mean[ENTROPY_LOSS] = (double)*log_temperature * (mean[ENTROPY_NOW] - r->target_entropy);
    for (int k = 0; k < SAC_STATISTICS; k++)
        e->sums[k] += mean[k];
    if (r->temperature_rate > 0) {
        stepping s = stepping_of(r, r->temperature_rate, 0);
        real g = (real)(mean[ENTROPY_NOW] - r->target_entropy);
        step_numbers(1, &g, &s, log_temperature, e->first + e->temperature, e->second + e->temperature, NULL);
    }
}

/* The k-th slab of all parameters; 0 where there is none any more. */
static int step_slab(sac_engine *e, const pe_sac *r, const bench *b, const stepping *actor, const stepping *critic, int k)
{
    int rows = (int)r->batch;
    for (int net = 0; net < 3; net++) {
        const mlp *m = net ? &e->critic : &e->actor;
        ptrdiff_t base = net ? e->critics + (net - 1) * e->critic.packed : 0;
        for (int l = 0; l < m->layers; k -= mlp_slabs(m, l++)) {
            if (k >= mlp_slabs(m, l))
                continue;
            real *parameters = e->parameters + base, *first = e->first + base, *second = e->second + base;
            if (net)
                mlp_step(m, l, k, rows, e->pair, e->critic_d[net - 1], &e->critic_trail[net - 1], critic, parameters,
                         transposes_of(e, net - 1), first, second, e->target + (net - 1) * e->critic.packed, b->slab);
            else
                mlp_step(m, l, k, rows, e->x, e->actor_d, &e->actor_trail, actor, parameters, e->transposes, first, second, NULL, b->slab);
            return 1;
        }
    }
    if (k == 0 && e->shape.state_noise)
        step_spread(e, r, b, actor);
    return k == 0;
}

/* Rows of a chunk: of an even number of chunks about as large as each other. It depends on the batch alone, as the compiler may round a
 * row in the rest of a loop otherwise than one in whole vectors. */
static int chunk_rows(int64_t batch)
{
    int64_t chunks = 2 * ((batch + 2 * BLOCK - 1) / (2 * BLOCK));
    return (int)ROUND_UP((batch + chunks - 1) / chunks, 4);
}

/* One gradient step of critics, actor and temperature, all from the parameters before it. */
static void sac_update(sac_engine *e, pe_sac *r, bench *b, int64_t limit, int thread)
{
    int chunk = chunk_rows(r->batch), chunks = (int)((r->batch + chunk - 1) / chunk);
    real temperature = pe_exp(e->parameters[e->temperature]);
    if (e->shape.state_noise)
        squared_spread(e, b->spread);
    for (int k = atomic_fetch_add(&e->next[0], 1); k < chunks; k = atomic_fetch_add(&e->next[0], 1)) {
        int64_t at = (int64_t)k * chunk;
        int rows = r->batch - at < chunk ? (int)(r->batch - at) : chunk;
        learn_values(e, r, b, at, rows, limit, temperature);
        learn_actions(e, r, b, at, rows, temperature);
    }
    if (thread == 0) {
        atomic_store(&e->next[1], 0);
        ++*r->adam_steps;
    }
    pool_barrier(e->pool);
    if (thread == 0) {
        atomic_store(&e->next[0], 0);
        conclude(e, r);
        r->updates_done++;
    }
    stepping actor = stepping_of(r, r->actor_rate, 0), critic = stepping_of(r, r->critic_rate, r->follow);
    while (step_slab(e, r, b, &actor, &critic, atomic_fetch_add(&e->next[1], 1)))
        ;
    if (thread == 0)
        ++*r->drawn; /* nobody draws before the barrier */
    pool_barrier(e->pool);
}
