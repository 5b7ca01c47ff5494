#include "pe_sac.h"

#include "pe_replay.c"

/* The engine, and room for a whole batch: what the second half of an update needs of the first. */
struct sac_engine {
    pool *pool;
    pe_sac_shape shape;
    mlp actor, critic;
    int width;                                         /* of the last hidden layer */
    ptrdiff_t spread, critics, temperature, packed;    /* places in the packed form: gSDE's, the first critic's, …; its size */
    ptrdiff_t flat_spread, flat_critics, flat;         /* places in the flat form, and its size */
    real *parameters, *first, *second;                 /* packed */
    real *target, *transposes;                         /* of both critics; of the actor and both critics */
    int64_t room;                                      /* rows of a batch that there is room for */
    real *rows;                                        /* all of the following */
    real *x, *pair;                                    /* (batch, n), (batch, n + m) inputs of actor and critics */
    real *actor_d, *critic_d[2];                       /* derivatives by the networks' outputs */
    real *spread_d;                                    /* (batch, m) of gSDE's deviation, over its variance */
    trail actor_trail, critic_trail[2];
    real *statistic;                                   /* (SAC_STATISTICS, batch) */
    real **workspace;                                  /* one a thread */
    double sums[SAC_STATISTICS];
    atomic_int next[2];                                /* chunk of rows, slab of parameters: whoever is free takes it */
};

/* What the policy says of a chunk of rows, in columns. */
typedef struct said {
    column mean[MOST_GROUPS], log_std[MOST_GROUPS], noise[MOST_GROUPS], action[MOST_GROUPS], variance[MOST_GROUPS], log_prob;
    uint8_t bounded[MOST_GROUPS][BLOCK]; /* whether the deviation was at its bound */
} said;

/* A thread's own rows. */
typedef struct bench {
    real *x, *pair, *out, *d, *value[2], *slope, *squares, *spread, *slab;
    trail actor, critic[2];
    said *next, *now;
} bench;

#define LOWEST_LOG_STD ((real)-20)
#define HIGHEST_LOG_STD ((real)2)
#define LEAST_VARIANCE ((real)1e-6)
#define LOG_2 ((real)0.693147180559945309)

/* Room that is dealt out; with no memory behind it, it says how much is needed. */
typedef struct ground {
    real *memory;
    ptrdiff_t used;
} ground;

static real *take(ground *g, ptrdiff_t count)
{
    real *found = g->memory ? g->memory + g->used : NULL;
    g->used += ROUND_UP(count, LINE);
    return found;
}

static trail take_trail(const mlp *m, int64_t rows, ground *g)
{
    trail t = {{0}, {0}};
    for (int k = 0; k < m->layers - 1; k++) {
        t.out[k] = take(g, rows * m->layer[k].stride);
        t.delta[k] = take(g, rows * m->layer[k].stride);
    }
    return t;
}

static trail trail_at(const mlp *m, const trail *t, int64_t row)
{
    trail found = {{0}, {0}};
    for (int k = 0; k < m->layers - 1; k++) {
        found.out[k] = t->out[k] + row * m->layer[k].stride;
        found.delta[k] = t->delta[k] + row * m->layer[k].stride;
    }
    return found;
}

/* A thread's room. */
static ptrdiff_t lay_bench(const sac_engine *e, bench *b, real *memory)
{
    ground g = {memory, 0};
    int n = e->actor.inputs, m = e->shape.numbers, widest = 0;
    for (int k = 0; k < MOST_LAYERS; k++) {
        widest = e->actor.layer[k].columns > widest ? e->actor.layer[k].columns : widest;
        widest = e->critic.layer[k].columns > widest ? e->critic.layer[k].columns : widest;
    }
    b->x = take(&g, (ptrdiff_t)BLOCK * n);
    b->pair = take(&g, (ptrdiff_t)BLOCK * (n + m));
    b->out = take(&g, (ptrdiff_t)BLOCK * 2 * m);
    b->d = take(&g, BLOCK);
    b->value[0] = take(&g, BLOCK);
    b->value[1] = take(&g, BLOCK);
    b->slope = take(&g, (ptrdiff_t)BLOCK * m);
    b->squares = take(&g, spaced(e->width));
    b->spread = take(&g, m * spaced(e->width));
    b->slab = take(&g, (ptrdiff_t)SLAB * widest);
    b->actor = take_trail(&e->actor, BLOCK, &g);
    b->critic[0] = take_trail(&e->critic, BLOCK, &g);
    b->critic[1] = take_trail(&e->critic, BLOCK, &g);
    b->next = (said *)take(&g, (ptrdiff_t)(sizeof(said) / sizeof(real) + 1));
    b->now = (said *)take(&g, (ptrdiff_t)(sizeof(said) / sizeof(real) + 1));
    return g.used;
}

static ptrdiff_t lay_batch(sac_engine *e, int64_t batch, real *memory)
{
    ground g = {memory, 0};
    int n = e->actor.inputs, m = e->shape.numbers;
    e->x = take(&g, batch * n);
    e->pair = take(&g, batch * (n + m));
    e->actor_d = take(&g, batch * e->actor.outputs);
    e->spread_d = take(&g, batch * m);
    e->statistic = take(&g, batch * SAC_STATISTICS);
    e->actor_trail = take_trail(&e->actor, batch, &g);
    for (int c = 0; c < 2; c++) {
        e->critic_d[c] = take(&g, batch);
        e->critic_trail[c] = take_trail(&e->critic, batch, &g);
    }
    return g.used;
}

static int room_for(sac_engine *e, int64_t batch)
{
    if (batch <= e->room)
        return 1;
    free(e->rows);
    e->room = 0;
    e->rows = numbers(lay_batch(e, batch, NULL));
    if (!e->rows)
        return 0;
    lay_batch(e, batch, e->rows);
    e->room = batch;
    return 1;
}

API void pe_sac_free(sac_engine *e)
{
    if (!e)
        return;
    for (int t = 0; e->workspace && e->pool && t < pool_threads(e->pool); t++)
        free(e->workspace[t]);
    free(e->workspace);
    pool_free(e->pool);
    free(e->parameters);
    free(e->first);
    free(e->second);
    free(e->target);
    free(e->transposes);
    free(e->rows);
    free(e);
}

static int sound_widths(int32_t hidden, const int32_t *widths)
{
    int sound = hidden >= 1 && hidden < MOST_LAYERS;
    for (int k = 0; sound && k < hidden; k++)
        sound = widths[k] >= 1 && widths[k] <= 4096;
    return sound;
}

static void plan_networks(sac_engine *e)
{
    const pe_sac_shape *s = &e->shape;
    int32_t widths[MOST_LAYERS + 1];
    memcpy(widths + 1, s->widths, sizeof(int32_t) * (size_t)s->hidden);
    widths[0] = s->inputs;
    widths[s->hidden + 1] = s->state_noise ? s->numbers : 2 * s->numbers;
    mlp_plan(&e->actor, widths, s->hidden + 1, s->activation);
    memcpy(widths + 1, s->critic_widths, sizeof(int32_t) * (size_t)s->critic_hidden);
    widths[0] = s->inputs + s->numbers;
    widths[s->critic_hidden + 1] = 1;
    mlp_plan(&e->critic, widths, s->critic_hidden + 1, s->activation);
    e->width = s->widths[s->hidden - 1];
    ptrdiff_t spread = s->state_noise ? (ptrdiff_t)e->width * s->numbers : 0;
    e->spread = e->actor.packed;
    e->critics = e->spread + ROUND_UP(spread, LINE);
    e->temperature = e->critics + 2 * e->critic.packed;
    e->packed = e->temperature + LINE;
    e->flat_spread = e->actor.flat;
    e->flat_critics = e->flat_spread + spread;
    e->flat = e->flat_critics + 2 * e->critic.flat + 1;
}

/* A new engine, or NULL and what is wrong in `says`. */
API sac_engine *pe_sac_new(int32_t threads, const pe_sac_shape *shape, char *says, int32_t room)
{
    sac_engine *e = calloc(1, sizeof *e);
    int sound = shape->inputs >= 1 && shape->inputs <= 4096 && shape->numbers >= 1 && shape->numbers <= MOST_GROUPS &&
                (shape->activation == RELU || shape->activation == TANH) && sound_widths(shape->hidden, shape->widths) &&
                sound_widths(shape->critic_hidden, shape->critic_widths);
    const char *wrong = !e ? "memory" : sound ? NULL : "networks of one to three hidden layers, up to 4096 wide, and up to 16 numbers of action";
    if (!wrong) {
        e->shape = *shape;
        plan_networks(e);
        e->parameters = numbers(e->packed);
        e->first = numbers(e->packed);
        e->second = numbers(e->packed);
        e->target = numbers(2 * e->critic.packed);
        e->transposes = numbers(e->actor.transposes + 2 * e->critic.transposes);
        e->workspace = calloc((size_t)(threads > 0 ? threads : 1), sizeof(real *));
        e->pool = pool_new(threads);
        wrong = !e->pool ? "threads that the system grants" : NULL;
        if (!e->parameters || !e->first || !e->second || !e->target || !e->transposes || !e->workspace)
            wrong = "memory";
        bench b;
        for (int t = 0; !wrong && t < threads; t++)
            wrong = (e->workspace[t] = numbers(lay_bench(e, &b, NULL))) ? NULL : "memory";
    }
    if (wrong) {
        snprintf(says, (size_t)room, "%s", wrong);
        pe_sac_free(e);
        return NULL;
    }
    return e;
}

API int64_t pe_sac_flat(const sac_engine *e) { return e->flat; }

static void sac_pack(const sac_engine *e, const real *flat, real *packed)
{
    mlp_pack(&e->actor, flat, packed);
    memcpy(packed + e->spread, flat + e->flat_spread, sizeof(real) * (size_t)(e->flat_critics - e->flat_spread));
    for (int c = 0; c < 2; c++)
        mlp_pack(&e->critic, flat + e->flat_critics + c * e->critic.flat, packed + e->critics + c * e->critic.packed);
    packed[e->temperature] = flat[e->flat - 1];
}

static void sac_unpack(const sac_engine *e, const real *packed, real *flat)
{
    mlp_unpack(&e->actor, packed, flat);
    memcpy(flat + e->flat_spread, packed + e->spread, sizeof(real) * (size_t)(e->flat_critics - e->flat_spread));
    for (int c = 0; c < 2; c++)
        mlp_unpack(&e->critic, packed + e->critics + c * e->critic.packed, flat + e->flat_critics + c * e->critic.flat);
    flat[e->flat - 1] = packed[e->temperature];
}

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
