/* The inner loops of dense, conv, gru and lstm: four columns of two rows of weights to a turn. */
#include "pe_dot.h"

uint64_t pe_dot_8(const void *x, const void *w0, const void *w1, uint32_t count) { return pe_dot_int8(x, w0, w1, count); }

uint64_t pe_dot_16(const void *values, const void *first, const void *second, uint32_t count)
{
    const uint32_t whole = count & ~3u;
    const int16_t *x = values;
    const int8_t *w0 = (const int8_t *)first + whole, *w1 = (const int8_t *)second + whole;
    uint32_t a0 = 0, a1 = 0;
    int32_t i = -(int32_t)whole;
#if defined(PE_DOT_M0)
#define COLUMN(at)                                                                                              \
    "ldrh r4, [r0, #" #at "]\n sxth r4, r4\n ldrsb r5, [r1, r3]\n muls r5, r4\n adds r6, r6, r5\n"              \
    "ldrsb r5, [r2, r3]\n muls r5, r4\n adds r7, r7, r5\n"
    if (i != 0) {
        PE_DOT_OPERANDS(x, w0, w1, i);
        __asm__(".syntax unified\n mov r12, r7\n movs r6, #0\n movs r7, #0\n1:\n" COLUMN(0) "adds r3, #1\n" COLUMN(2)
                "adds r3, #1\n" COLUMN(4) "adds r3, #1\n" COLUMN(6) "adds r0, #8\n adds r3, #1\n bne 1b\n"
                "movs r0, r6\n movs r1, r7\n mov r7, r12\n"
                : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3)
                :
                : "r4", "r5", "r6", "r12", "cc", "memory");
        a0 = r0;
        a1 = r1;
        x += whole;
    }
#undef COLUMN
#elif defined(PE_DOT_SIMD32)
    for (; i != 0; i += 4, x += 4) {
        const uint32_t low = pe_word(x), high = pe_word(x + 2), r0 = pe_word(w0 + i), r1 = pe_word(w1 + i);
        uint32_t v0, v1; /* values 0 and 2, 1 and 3: as the weights lie */
        __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(v0) : "r"(low), "r"(high));
        __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(v1) : "r"(high), "r"(low));
        a0 = pe_add2(pe_add2(a0, v0, pe_even(r0)), v1, pe_odd(r0));
        a1 = pe_add2(pe_add2(a1, v0, pe_even(r1)), v1, pe_odd(r1));
    }
#else
#define COLUMN(k) (a0 += (uint32_t)(x[k] * w0[i + (k)]), a1 += (uint32_t)(x[k] * w1[i + (k)]))
    for (; i != 0; i += 4, x += 4)
        COLUMN(0), COLUMN(1), COLUMN(2), COLUMN(3);
#undef COLUMN
#endif
    for (uint32_t k = 0; k < (count & 3u); k++) {
        a0 += (uint32_t)(x[k] * w0[k]);
        a1 += (uint32_t)(x[k] * w1[k]);
    }
    return pe_both(a0, a1);
}

/* The first weight of a byte, whose sign is bit 3; the second one is what an arithmetic shift by 4 leaves. */
static int32_t low4(int32_t two) { return (int32_t)((uint32_t)two << 28) >> 28; }

static uint32_t byte4(const int8_t *x, int32_t two) { return (uint32_t)(x[0] * low4(two)) + (uint32_t)(x[1] * (two >> 4)); }

uint64_t pe_dot_4(const void *values, const void *first, const void *second, uint32_t count)
{
    const uint32_t whole = count / 4 * 2; /* bytes of weights */
    const int8_t *x = values, *w0 = (const int8_t *)first + whole, *w1 = (const int8_t *)second + whole;
    uint32_t a0 = 0, a1 = 0;
    int32_t i = -(int32_t)whole;
#ifdef PE_DOT_M0 /* 6.6 cycles for a product, where GCC 12 needs 7.75 */
#define ROW(w, a)                                                                          \
    "ldrsb r6, [" #w ", r3]\n lsls r7, r6, #28\n asrs r7, r7, #28\n muls r7, r4\n"         \
    "add " #a ", r7\n asrs r6, r6, #4\n muls r6, r5\n add " #a ", r6\n"
#define BYTE(at0, at1)                                                                     \
    "ldrb r4, [r0, #" #at0 "]\n sxtb r4, r4\n ldrb r5, [r0, #" #at1 "]\n sxtb r5, r5\n"    \
    ROW(r1, r8) ROW(r2, r9)
    if (i != 0) {
        PE_DOT_OPERANDS(x, w0, w1, i);
        __asm__(".syntax unified\n mov r12, r7\n movs r4, #0\n mov r8, r4\n mov r9, r4\n1:\n" BYTE(0, 1) "adds r3, #1\n" BYTE(2, 3)
                "adds r0, #4\n adds r3, #1\n bne 1b\n mov r0, r8\n mov r1, r9\n mov r7, r12\n"
                : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3)
                :
                : "r4", "r5", "r6", "r8", "r9", "r12", "cc", "memory");
        a0 = r0;
        a1 = r1;
        x += 2 * whole;
    }
#undef BYTE
#undef ROW
#else
    for (; i != 0; i += 2, x += 4) {
        a0 += byte4(x, w0[i]) + byte4(x + 2, w0[i + 1]);
        a1 += byte4(x, w1[i]) + byte4(x + 2, w1[i + 1]);
    }
#endif
    if (count & 2u) {
        a0 += byte4(x, *w0++);
        a1 += byte4(x, *w1++);
        x += 2;
    }
    if (count & 1u) {
        a0 += (uint32_t)(x[0] * low4(*w0));
        a1 += (uint32_t)(x[0] * low4(*w1));
    }
    return pe_both(a0, a1);
}
