/* Logistic and tanh on int16 (docs/image.md): Q3.12 to Q0.15, by a table of the logistic function and straight lines between. */
#ifndef PE_SQUASH_H
#define PE_SQUASH_H

#include <stdint.h>

extern const uint16_t pe_squash_table[256];

/* 0 … 32767. */
int32_t pe_logistic(int32_t a);

/* -32768 … 32767; `up` is the left shift that brings `a` to Q3.12, 0 … 12. */
int32_t pe_tanh(int32_t a, uint32_t up);

#endif
