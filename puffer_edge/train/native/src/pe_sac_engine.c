/* The engine of SAC: its networks in one packed buffer, and room for a batch and for each thread. */

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
