/* Shields as bounded bytecode (docs/image.md). */
#ifndef PE_SHIELD_H
#define PE_SHIELD_H

#include <stdint.h>

/* Check a section for n observations and m actions. Returns PE_OK or the number of a check (pe_engine.h). */
int32_t pe_shield_check(const uint8_t *code, uint32_t bytes, uint32_t n, uint32_t m);

/* Run a checked section: in = x[n], raw[m], previous[m], fallback; out = applied[m], stage bits. */
void pe_shield_run(const uint8_t *code, const int32_t *in, int32_t *out);

#endif
