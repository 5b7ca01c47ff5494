/* Samples of the ring: which they are, and what follows them within n steps. */

/* A sample: where it begins, where its value is bootstrapped and with which weight (0 after a termination), and the reward until there. */
typedef struct sampled {
    int64_t from, to; /* places, row · slots + slot */
    double reward, weight;
} sampled;

/* Uniform over all steps that the ring holds: places are drawn until one has a step. There must be one. */
static sampled draw_sample(const pe_ring *ring, int64_t limit, int n_step, double discount, uint32_t seed, uint32_t index, uint64_t batch)
{
    int64_t row = 0, slot = 0;
    for (uint32_t attempt = 0;; attempt++) {
        words w = philox(attempt, index, (uint32_t)batch, (uint32_t)(batch >> 32), seed, STREAM_REPLAY);
        row = (int64_t)(((uint64_t)w.w[0] * (uint64_t)ring->rows) >> 32);
        slot = (int64_t)(((uint64_t)w.w[1] * (uint64_t)limit) >> 32);
        if (ring->kind[row * ring->slots + slot] != NO_STEP)
            break;
    }
    sampled s = {.from = row * ring->slots + slot, .weight = 1};
    for (int k = 0; k < n_step; k++) {
        int64_t at = row * ring->slots + slot;
        s.reward += s.weight * (double)ring->reward[at];
        s.weight *= discount;
        slot = slot + 1 == ring->slots ? 0 : slot + 1;
        s.to = row * ring->slots + slot;
        if (ring->kind[at] == TERMINATED)
            s.weight = 0;
        if (ring->kind[at] != STEP || ring->kind[s.to] == NO_STEP)
            break;
    }
    return s;
}

/* Slots that any row has written. */
static int64_t ring_limit(const pe_ring *ring)
{
    int64_t most = 0;
    for (int64_t row = 0; row < ring->rows; row++)
        most = ring->place[row] > most ? ring->place[row] : most;
    return most + 1 < ring->slots ? most + 1 : ring->slots;
}

/* The next place of a row, which takes an observation. */
static void ring_see(const pe_ring *ring, int64_t row, int n, const double *observation)
{
    int64_t at = row * ring->slots + ++ring->place[row] % ring->slots;
    ring->kind[at] = NO_STEP;
    for (int k = 0; k < n; k++)
        ring->observation[at * n + k] = (float)observation[k];
}
