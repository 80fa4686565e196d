/* SHA-256 (FIPS 180-4): portable, and with the SHA instructions of x86 where the processor has them. */
#ifndef RELAY_SHA256_H
#define RELAY_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#  define HAVE_X86 1
#  include <cpuid.h>
#  include <immintrin.h>
#endif

static const uint32_t sha256_start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t sha256_k[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

typedef void (*sha256_blocks)(uint32_t state[8], const unsigned char *data, size_t blocks);

static uint32_t sha256_read(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sha256_write(unsigned char *p, uint32_t word) {
    p[0] = (unsigned char)(word >> 24);
    p[1] = (unsigned char)(word >> 16);
    p[2] = (unsigned char)(word >> 8);
    p[3] = (unsigned char)word;
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))

/* One round; instead of moving the eight words their names move. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                       \
    do {                                                                                                       \
        uint32_t t = s[h] + (ROTATE(s[e], 6) ^ ROTATE(s[e], 11) ^ ROTATE(s[e], 25)) +                          \
                     (s[g] ^ (s[e] & (s[f] ^ s[g]))) + sha256_k[i] + w[i];                                     \
        s[d] += t;                                                                                             \
        s[h] = t + (ROTATE(s[a], 2) ^ ROTATE(s[a], 13) ^ ROTATE(s[a], 22)) +                                   \
               ((s[a] & s[b]) | (s[c] & (s[a] | s[b])));                                                       \
    } while (0)

static void sha256_portable(uint32_t state[8], const unsigned char *data, size_t blocks) {
    uint32_t w[64], s[8];
    int i;
    for (; blocks > 0; blocks--, data += 64) {
        for (i = 0; i < 16; i++) w[i] = sha256_read(data + 4 * i);
        for (; i < 64; i++) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (ROTATE(a, 7) ^ ROTATE(a, 18) ^ a >> 3) + w[i - 7] + (ROTATE(b, 17) ^ ROTATE(b, 19) ^ b >> 10);
        }
        memcpy(s, state, sizeof(s));
        for (i = 0; i < 64; i += 8) {
            ROUND(0, 1, 2, 3, 4, 5, 6, 7, i);
            ROUND(7, 0, 1, 2, 3, 4, 5, 6, i + 1);
            ROUND(6, 7, 0, 1, 2, 3, 4, 5, i + 2);
            ROUND(5, 6, 7, 0, 1, 2, 3, 4, i + 3);
            ROUND(4, 5, 6, 7, 0, 1, 2, 3, i + 4);
            ROUND(3, 4, 5, 6, 7, 0, 1, 2, i + 5);
            ROUND(2, 3, 4, 5, 6, 7, 0, 1, i + 6);
            ROUND(1, 2, 3, 4, 5, 6, 7, 0, i + 7);
        }
        for (i = 0; i < 8; i++) state[i] += s[i];
    }
}

#ifdef HAVE_X86

/* Four rounds at a time; m[i & 3] holds words 4i … 4i+3 of the message schedule. */
__attribute__((target("sha,sse4.1,ssse3"))) static void sha256_x86(
    uint32_t state[8], const unsigned char *data, size_t blocks
) {
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i low = _mm_loadu_si128((const __m128i *)state), high = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i badc = _mm_shuffle_epi32(low, 0xB1), efgh = _mm_shuffle_epi32(high, 0x1B);
    __m128i abef = _mm_alignr_epi8(badc, efgh, 8), cdgh = _mm_blend_epi16(efgh, badc, 0xF0);
    for (; blocks > 0; blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i m[4];
        int i;
        for (i = 0; i < 4; i++) m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), order);
#pragma GCC unroll 16
        for (i = 0; i < 16; i++) {
            __m128i words;
            if (i >= 4) {
                __m128i sum = _mm_add_epi32(
                    _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]), _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4)
                );
                m[i & 3] = _mm_sha256msg2_epu32(sum, m[(i + 3) & 3]);
            }
            words = _mm_add_epi32(m[i & 3], _mm_load_si128((const __m128i *)(sha256_k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    badc = _mm_shuffle_epi32(abef, 0x1B);
    efgh = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(badc, efgh, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(efgh, badc, 8));
}

static int sha256_has_x86(void) {
    unsigned int a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}

#endif

#endif
