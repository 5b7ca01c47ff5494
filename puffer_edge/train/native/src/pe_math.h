/* Numbers, vectors, and the few functions of the network and its loss: branch-free, so that the compiler vectorises the loops around them.
 *
 * `real` is float; a build with PE_DOUBLE computes everything in double with the C library's functions, as a reference for tests.
 * Errors of the float functions, held by tests/train/native/test_native.py: exp 2.5e-7 relative, log 3e-7 of the larger of 1 and itself,
 * tanh 4e-7 relative, the sine and cosine of a turn 2.5e-7. NaN goes through all of them, or a training that diverged would look sound.
 */
#ifndef PE_MATH_H
#define PE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef PE_DOUBLE
typedef double real;
#else
typedef float real;
#endif

#ifndef PE_BYTES
#define PE_BYTES 16 /* of a vector register */
#endif
#define LANES ((int)(PE_BYTES / sizeof(real)))
#define ROUND_UP(n, to) (((n) + (to)-1) / (to) * (to))

typedef real vec __attribute__((vector_size(PE_BYTES), aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const real *p) { return *(const vec *)p; }
INLINE void store(real *p, vec v) { *(vec *)p = v; }
INLINE vec all(real x) { return (vec){0} + x; }

INLINE real smaller(real a, real b) { return a < b ? a : b; }
INLINE real larger(real a, real b) { return a > b ? a : b; }
/* NaN stays NaN. */
INLINE real between(real x, real low, real high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

#ifdef PE_DOUBLE
INLINE real pe_exp(real x) { return exp(x); }
INLINE real pe_log(real x) { return log(x); }
INLINE real pe_tanh(real x) { return tanh(x); }
INLINE real pe_sqrt(real x) { return __builtin_sqrt(x); }
INLINE void pe_turn(real x, real *sine, real *cosine)
{
    *sine = sin(6.283185307179586477 * x);
    *cosine = cos(6.283185307179586477 * x);
}
#else
INLINE real pe_sqrt(real x) { return __builtin_sqrtf(x); }

/* e^x for x in -87 … 88, outside as at the ends: 2^n · e^r, |r| ≤ ln 2 / 2, e^r by its Taylor polynomial of degree 7. */
INLINE float pe_exp(float x)
{
    x = between(x, -87.0f, 88.0f);
    const float shift = 12582912.0f; /* 1.5 · 2^23: adding it rounds to a whole number */
    float shifted = x * 1.44269504f + shift, n = shifted - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + (127u << 23); /* the low bits of `shifted` are n; of NaN they do not matter */
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* ln x for normal x > 0, NaN for NaN: exponent · ln 2 + 2 artanh(f / (2 + f)), f = mantissa − 1 in −0.293 … 0.414. */
INLINE float pe_log(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23; /* so that the mantissa lies in √½ … √2 */
    bits -= (uint32_t)e << 23;
    float mantissa;
    memcpy(&mantissa, &bits, 4);
    float f = mantissa - 1.0f + (x - x), s = f / (2.0f + f), z = s * s; /* x − x: 0, but NaN for NaN and infinity */
    float p = 1.0f / 9;
    p = p * z + 1.0f / 7;
    p = p * z + 1.0f / 5;
    p = p * z + 1.0f / 3;
    p = p * z + 1.0f;
    return (float)e * 0.693147181f + 2.0f * s * p;
}

/* x P(x^2) / Q(x^2) for |x| up to 7.905, where tanh is 1 in float: fitted to the least relative error over that range, 6e-9 before rounding
 * (Lawson's reweighted least squares, the quotient made linear as by Sanathanan and Koerner). */
INLINE float pe_tanh(float x)
{
    x = between(x, -7.9053111f, 7.9053111f);
    float z = x * x, p = 1.541742556e-8f, q = 8.594714700e-7f;
    p = p * z + 2.201641109e-5f;
    p = p * z + 3.578600008e-3f;
    p = p * z + 0.1345029622f;
    p = p * z + 1.0f;
    q = q * z + 3.422994632e-4f;
    q = q * z + 2.619076520e-2f;
    q = q * z + 0.4678362310f;
    q = q * z + 1.0f;
    return x * p / q;
}

/* Sine and cosine of 2 pi x for x in [0, 1): of the nearest quarter turn, and by their Taylor polynomials of the rest, at most an eighth. */
INLINE void pe_turn(float x, float *sine, float *cosine)
{
    const float shift = 12582912.0f;
    float quarter = (x * 4.0f + shift) - shift, a = (x - quarter * 0.25f) * 6.28318531f, z = a * a;
    float s = 1.0f / 362880, c = 1.0f / 40320;
    s = s * z - 1.0f / 5040;
    s = s * z + 1.0f / 120;
    s = s * z - 1.0f / 6;
    s = s * z * a + a;
    c = c * z - 1.0f / 720;
    c = c * z + 1.0f / 24;
    c = c * z - 0.5f;
    c = c * z + 1.0f;
    int32_t q = (int32_t)quarter;
    float first = q & 1 ? c : s, second = q & 1 ? s : c;
    *sine = q & 2 ? -first : first;
    *cosine = (q + 1) & 2 ? -second : second;
}
#endif

#endif
