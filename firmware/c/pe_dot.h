/* Sums of products of two rows of weights with the same values, so that every value is loaded once for both. */
#ifndef PE_DOT_H
#define PE_DOT_H

#include <stdint.h>

/* The sum of the first row in the low and that of the second in the high half: two registers. They wrap rather than
 * overflow: with an image from this package it is proved that they do neither. `count` columns, also none. */
typedef uint64_t pe_dot(const void *x, const void *w0, const void *w1, uint32_t count);

/* int8 values and weights; int16 values, int8 weights; int8 values, weights of 4 bits, two a byte. */
uint64_t pe_dot_8(const void *x, const void *w0, const void *w1, uint32_t count);
uint64_t pe_dot_16(const void *x, const void *w0, const void *w1, uint32_t count);
uint64_t pe_dot_4(const void *x, const void *w0, const void *w1, uint32_t count);

/* A weight of 4 bits, the first of a byte in its low half. */
static inline int32_t pe_weight4(const uint8_t *w, uint32_t i) { return ((w[i >> 1] >> (4u * (i & 1u)) & 15) ^ 8) - 8; }

#if defined(__ARM_ARCH_6M__) && defined(__OPTIMIZE__)
/* The loops of assembler need all eight low registers, and the compiler may keep one of them, r7, as its frame pointer. So
 * every register is named: operands in r0 to r3, scratch in r4 to r6, and r7 is kept in r12 meanwhile. */
#define PE_DOT_M0
#define PE_DOT_OPERANDS(values, first, second, index)                                                  \
    register uint32_t r0 __asm__("r0") = (uint32_t)(values), r1 __asm__("r1") = (uint32_t)(first);     \
    register uint32_t r2 __asm__("r2") = (uint32_t)(second), r3 __asm__("r3") = (uint32_t)(index)
#elif defined(__ARM_FEATURE_SIMD32) && defined(__GNUC__)
#define PE_DOT_SIMD32
#endif

static inline uint64_t pe_both(uint32_t a0, uint32_t a1) { return a0 | (uint64_t)a1 << 32; }

#ifdef PE_DOT_SIMD32 /* two products an instruction; their sum wraps */
static inline uint32_t pe_word(const void *at)
{
    uint32_t four;
    __builtin_memcpy(&four, at, 4); /* a load: rows of a convolution begin anywhere */
    return four;
}

/* Bytes 0 and 2 of a word as two int16, and bytes 1 and 3. */
static inline uint32_t pe_even(uint32_t four)
{
    uint32_t two;
    __asm__("sxtb16 %0, %1" : "=r"(two) : "r"(four));
    return two;
}

static inline uint32_t pe_odd(uint32_t four)
{
    uint32_t two;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(two) : "r"(four));
    return two;
}

static inline uint32_t pe_add2(uint32_t a, uint32_t x, uint32_t w)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(a) : "r"(x), "r"(w));
    return a;
}
#endif

/* pe_dot_8, for a loop that has it inside. */
static inline uint64_t pe_dot_int8(const void *values, const void *first, const void *second, uint32_t count)
{
    const uint32_t whole = count & ~3u;
    const int8_t *x = (const int8_t *)values + whole, *w0 = (const int8_t *)first + whole, *w1 = (const int8_t *)second + whole;
    uint32_t a0 = 0, a1 = 0;
    int32_t i = -(int32_t)whole; /* one index serves all three arrays from behind, and its reaching zero ends the loop */
#if defined(PE_DOT_M0)           /* 5.75 cycles for a product, where GCC 12 needs 7 */
#define COLUMN                                                                 \
    "ldrsb r4, [r0, r3]\n ldrsb r5, [r1, r3]\n muls r5, r4\n adds r6, r6, r5\n" \
    "ldrsb r5, [r2, r3]\n muls r5, r4\n adds r7, r7, r5\n adds r3, #1\n"
    if (i != 0) {
        PE_DOT_OPERANDS(x, w0, w1, i);
        __asm__(".syntax unified\n mov r12, r7\n movs r6, #0\n movs r7, #0\n1:\n" COLUMN COLUMN COLUMN COLUMN
                "bne 1b\n movs r0, r6\n movs r1, r7\n mov r7, r12\n"
                : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3)
                :
                : "r4", "r5", "r6", "r12", "cc", "memory");
        a0 = r0;
        a1 = r1;
    }
#undef COLUMN
#elif defined(PE_DOT_SIMD32)
    for (; i != 0; i += 4) {
        const uint32_t v = pe_word(x + i), v0 = pe_even(v), v1 = pe_odd(v), r0 = pe_word(w0 + i), r1 = pe_word(w1 + i);
        a0 = pe_add2(pe_add2(a0, v0, pe_even(r0)), v1, pe_odd(r0));
        a1 = pe_add2(pe_add2(a1, v0, pe_even(r1)), v1, pe_odd(r1));
    }
#else
#define COLUMN(k) (a0 += (uint32_t)(x[i + (k)] * w0[i + (k)]), a1 += (uint32_t)(x[i + (k)] * w1[i + (k)]))
    for (; i != 0; i += 4)
        COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3);
#undef COLUMN
#endif
    for (uint32_t k = 0; k < (count & 3u); k++) {
        a0 += (uint32_t)(x[k] * w0[k]);
        a1 += (uint32_t)(x[k] * w1[k]);
    }
    return pe_both(a0, a1);
}

#endif
