/* The part of <string.h> that the engine uses: WebAssembly has no C library. Defined in firmware/boards/rp2040/memory.c. */
#ifndef PE_WASM_STRING_H
#define PE_WASM_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
