/* CRC-32 as zlib computes it. */
#ifndef PE_CRC32_H
#define PE_CRC32_H

#include <stdint.h>

/* The CRC of more bytes; `crc` is that of those before them, 0 at the start. */
uint32_t pe_crc32(uint32_t crc, const void *data, uint32_t bytes);

#endif
