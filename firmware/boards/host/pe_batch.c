/* The engine for ctypes: many steps, or many values of one kernel, in one call. */
#include "pe_batch.h"

#include <stdlib.h>

#include "pe_crc32.h"
#include "pe_engine.h"
#include "pe_ops.h"
#include "pe_sha256.h"

int32_t pe_batch(const uint8_t *image, uint32_t bytes, uint32_t steps, const uint32_t *flags, const int32_t *observation, int32_t *raw,
                 int32_t *applied, uint32_t *outcome, uint32_t *state)
{
    pe_policy p;
    const int32_t check = pe_open(&p, image, bytes);
    if (check != PE_OK)
        return check;
    p.scratch = calloc(1, pe_scratch_bytes(&p) + 8u); /* never of size 0, and clear */
    if (p.scratch == NULL)
        return -1;
    const uint32_t n = p.image->n, m = p.image->m;
    for (uint32_t k = 0; k < steps; k++) {
        outcome[k] = pe_tick(&p, flags[k], observation + k * n, raw + k * m, applied + k * m);
        if (state != NULL)
            state[k] = pe_state_digest(&p);
    }
    free(p.scratch);
    return PE_OK;
}

int32_t pe_batch_self_test(const uint8_t *image, uint32_t bytes)
{
    pe_policy p;
    int32_t result = pe_open(&p, image, bytes);
    if (result != PE_OK)
        return -result;
    p.scratch = calloc(1, pe_scratch_bytes(&p) + 8u);
    if (p.scratch == NULL)
        return INT32_MIN;
    result = (int32_t)pe_self_test(&p);
    free(p.scratch);
    return result;
}

void pe_batch_requantise(uint32_t count, const int32_t *a, const int32_t *m, const int32_t *s, int32_t *y)
{
    for (uint32_t k = 0; k < count; k++)
        y[k] = pe_requantise_signed(a[k], m[k], s[k]);
}

void pe_batch_shift(uint32_t count, const int32_t *a, const int32_t *s, int32_t *y)
{
    for (uint32_t k = 0; k < count; k++)
        y[k] = a[k] >> s[k];
}

uint32_t pe_batch_crc32(uint32_t crc, const uint8_t *data, uint32_t bytes) { return pe_crc32(crc, data, bytes); }

void pe_batch_sha256(const uint8_t *data, uint32_t bytes, uint8_t *digest) { pe_sha256(data, bytes, digest); }
