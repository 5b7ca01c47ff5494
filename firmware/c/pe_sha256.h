/* SHA-256 (FIPS 180-4). */
#ifndef PE_SHA256_H
#define PE_SHA256_H

#include <stdint.h>

enum { PE_SHA256_BYTES = 32 };

void pe_sha256(const uint8_t *data, uint32_t bytes, uint8_t digest[PE_SHA256_BYTES]);

#endif
