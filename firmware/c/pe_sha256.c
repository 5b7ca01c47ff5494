/* SHA-256 (FIPS 180-4) of data that lie in one piece; the message schedule is a ring of 16 words. */
#include "pe_sha256.h"

#include <string.h>

enum { BLOCK = 64 };

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, uint32_t by) { return x >> by | x << (32u - by); }

static void absorb(uint32_t hash[8], const uint8_t *block)
{
    uint32_t w[16], s[8];
    memcpy(s, hash, sizeof s);
    for (uint32_t k = 0; k < 16; k++, block += 4)
        w[k] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 | block[3];
    for (uint32_t k = 0; k < 64; k++) {
        if (k >= 16) {
            const uint32_t a = w[(k + 1u) & 15u], b = w[(k + 14u) & 15u];
            w[k & 15u] += w[(k + 9u) & 15u] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        const uint32_t e = s[4], a = s[0];
        const uint32_t t1 =
            s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + constants[k] + w[k & 15u];
        const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (uint32_t k = 0; k < 8; k++)
        hash[k] += s[k];
}

void pe_sha256(const uint8_t *data, uint32_t bytes, uint8_t digest[PE_SHA256_BYTES])
{
    uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint32_t left = bytes;
    for (; left >= BLOCK; left -= BLOCK, data += BLOCK)
        absorb(hash, data);
    uint8_t block[BLOCK] = {0};
    memcpy(block, data, left);
    block[left] = 0x80;
    if (left >= BLOCK - 8) {
        absorb(hash, block);
        memset(block, 0, sizeof block);
    }
    for (uint32_t k = 0; k < 4; k++)
        block[BLOCK - 1 - k] = (uint8_t)(bytes << 3 >> 8 * k);
    block[BLOCK - 5] = (uint8_t)(bytes >> 29);
    absorb(hash, block);
    for (uint32_t k = 0; k < PE_SHA256_BYTES; k++)
        digest[k] = (uint8_t)(hash[k / 4] >> 8 * (3 - k % 4));
}
