/* The engine for ctypes. Arrays are the caller's, row-major. */
#ifndef PE_BATCH_H
#define PE_BATCH_H

#include <stdint.h>

/* `steps` ticks of one policy from reset: flags[steps], observation[steps][n], raw and applied [steps][m], outcome[steps],
 * state[steps] (digests) or null. `image` is 4-aligned. Returns PE_OK, the number of pe_open's check, or -1: no memory. */
int32_t pe_batch(const uint8_t *image, uint32_t bytes, uint32_t steps, const uint32_t *flags, const int32_t *observation, int32_t *raw,
                 int32_t *applied, uint32_t *outcome, uint32_t *state);

/* 0, 1 + the first differing step, or minus the number of pe_open's check. */
int32_t pe_batch_self_test(const uint8_t *image, uint32_t bytes);

void pe_batch_requantise(uint32_t count, const int32_t *a, const int32_t *m, const int32_t *s, int32_t *y);
void pe_batch_shift(uint32_t count, const int32_t *a, const int32_t *s, int32_t *y);
uint32_t pe_batch_crc32(uint32_t crc, const uint8_t *data, uint32_t bytes);
void pe_batch_sha256(const uint8_t *data, uint32_t bytes, uint8_t *digest);

#endif
