/* a·A + b·B of secp256k1 for points that come back, by tables of their multiples.
 *
 * Field and group arithmetic are libsecp256k1's own (vendor/secp256k1). Variable time: never for secrets; ring
 * signatures are verified with public values only.
 *
 * A table holds k·2^(8w)·P for w = 0..15, k = 1..128, and 2^128·P: 131 KiB. A scalar is split by the endomorphism into
 * two halves of at most 128 bits, each written in 16 signed digits of 8 bits; so one product is at most 34 additions
 * and no doubling. The second halves of both products are added up apart and multiplied by lambda together.
 */
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#  define USE_ASM_X86_64 1
#endif

#include "vendor/secp256k1/util.h"
#include "vendor/secp256k1/int128_impl.h"
#include "vendor/secp256k1/field_impl.h"
#include "vendor/secp256k1/scalar_impl.h"
#include "vendor/secp256k1/group_impl.h"

#define WINDOWS 16
#define DIGITS 128

typedef struct {
    secp256k1_ge_storage multiples[WINDOWS * DIGITS + 1];
} ra_table;

#define EXPORTED __attribute__((visibility("default")))

static int parse(secp256k1_ge *point, const unsigned char *encoded) {
    secp256k1_fe x;
    if ((encoded[0] & 0xfe) != 2 || !secp256k1_fe_set_b32_limit(&x, encoded + 1)) return 0;
    return secp256k1_ge_set_xo_var(point, &x, encoded[0] & 1);
}

/* A table of the point with this compressed form; NULL for what is no point, or without memory. */
EXPORTED ra_table *ra_table_new(const unsigned char *encoded) {
    secp256k1_ge base, row[DIGITS];
    secp256k1_gej sums[DIGITS], next;
    ra_table *table;
    int w, k;
    if (!parse(&base, encoded)) return NULL;
    table = malloc(sizeof(*table));
    if (table == NULL) return NULL;
    for (w = 0; w < WINDOWS; w++) {
        secp256k1_gej_set_ge(&sums[0], &base);
        for (k = 1; k < DIGITS; k++) secp256k1_gej_add_ge_var(&sums[k], &sums[k - 1], &base, NULL);
        secp256k1_ge_set_all_gej_var(row, sums, DIGITS);
        for (k = 0; k < DIGITS; k++) {
            /* k·2^(8w) < order of the group: none of these is infinity. */
            secp256k1_ge_to_storage(&table->multiples[w * DIGITS + k], &row[k]);
        }
        secp256k1_gej_double_var(&next, &sums[DIGITS - 1], NULL);
        secp256k1_ge_set_gej_var(&base, &next);
    }
    secp256k1_ge_to_storage(&table->multiples[WINDOWS * DIGITS], &base);
    return table;
}

EXPORTED void ra_table_free(ra_table *table) {
    free(table);
}

static void add_entry(secp256k1_gej *sum, const ra_table *table, int entry, int negative) {
    secp256k1_ge point;
    secp256k1_ge_from_storage(&point, &table->multiples[entry]);
    if (negative) secp256k1_ge_neg(&point, &point);
    secp256k1_gej_add_ge_var(sum, sum, &point, NULL);
}

/* sum += half·P; 0 where the half is larger than the split promises. */
static int add_half(secp256k1_gej *sum, const ra_table *table, secp256k1_scalar *half) {
    unsigned char bytes[32];
    int w, carry = 0, negative = secp256k1_scalar_is_high(half);
    if (negative) secp256k1_scalar_negate(half, half);
    secp256k1_scalar_get_b32(bytes, half);
    for (w = 0; w < 16; w++) {
        if (bytes[w] != 0) return 0;
    }
    for (w = 0; w < WINDOWS; w++) {
        int digit = bytes[31 - w] + carry;
        carry = digit > DIGITS;
        if (carry) digit -= 256;
        if (digit > 0) add_entry(sum, table, w * DIGITS + digit - 1, negative);
        if (digit < 0) add_entry(sum, table, w * DIGITS - digit - 1, !negative);
    }
    if (carry) add_entry(sum, table, WINDOWS * DIGITS, negative);
    return 1;
}

static int add_product(secp256k1_gej *plain, secp256k1_gej *turned, const ra_table *table, const unsigned char *scalar) {
    secp256k1_scalar k, low, high;
    secp256k1_scalar_set_b32(&k, scalar, NULL); /* reduced modulo the order, as the protocol has it */
    secp256k1_scalar_split_lambda(&low, &high, &k);
    return add_half(plain, table, &low) && add_half(turned, table, &high);
}

/* The compressed form of a·A + b·B into out[33]; infinity is 02 and 32 zero bytes. 0 where it cannot tell. */
EXPORTED int ra_combine(
    unsigned char *out, const ra_table *first, const unsigned char *a, const ra_table *second, const unsigned char *b
) {
    secp256k1_gej plain, turned, sum;
    secp256k1_ge point;
    secp256k1_gej_set_infinity(&plain);
    secp256k1_gej_set_infinity(&turned);
    if (!add_product(&plain, &turned, first, a) || !add_product(&plain, &turned, second, b)) return 0;
    if (!secp256k1_gej_is_infinity(&turned)) secp256k1_fe_mul(&turned.x, &turned.x, &secp256k1_const_beta);
    secp256k1_gej_add_var(&sum, &plain, &turned, NULL);
    if (secp256k1_gej_is_infinity(&sum)) {
        memset(out, 0, 33);
        out[0] = 2;
        return 1;
    }
    secp256k1_ge_set_gej_var(&point, &sum);
    secp256k1_fe_normalize_var(&point.x);
    secp256k1_fe_normalize_var(&point.y);
    out[0] = secp256k1_fe_is_odd(&point.y) ? 3 : 2;
    secp256k1_fe_get_b32(out + 1, &point.x);
    return 1;
}
