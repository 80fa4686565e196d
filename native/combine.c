/* a·A + b·B of secp256k1 for points that come back, by tables of their multiples.
 *
 * Field and group arithmetic are libsecp256k1's own (vendor/secp256k1). Variable time: never for secrets; ring
 * signatures are verified with public values only.
 *
 * A table holds k·2^(8w)·P for w = 0..15, k = 1..128, and 2^128·P: 131 KiB. A scalar is split by the endomorphism into
 * two halves of at most 128 bits, each written in 16 signed digits of 8 bits; so one product is at most 34 additions
 * and no doubling. The high halves of both products are added up apart and multiplied by lambda together.
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
#define SHARED_INVERSIONS 2 /* a third one costs more than the additions that it makes cheaper */

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

/* Points whose sum is wanted: at most the multiples that two halves of scalars select. */
#define ADDENDS (2 * (WINDOWS + 1))

typedef struct {
    secp256k1_ge points[ADDENDS];
    int count;
} addends;

static void add_entry(addends *list, const ra_table *table, int entry, int negative) {
    secp256k1_ge *point = &list->points[list->count++];
    secp256k1_ge_from_storage(point, &table->multiples[entry]);
    if (negative) secp256k1_ge_neg(point, point);
}

/* Add half·P to the list; 0 where the half is larger than the split promises. */
static int add_half(addends *list, const ra_table *table, secp256k1_scalar half) {
    unsigned char bytes[32];
    int w, carry = 0, negative = secp256k1_scalar_is_high(&half);
    if (negative) secp256k1_scalar_negate(&half, &half);
    secp256k1_scalar_get_b32(bytes, &half);
    for (w = 0; w < 16; w++) {
        if (bytes[w] != 0) return 0;
    }
    for (w = 0; w < WINDOWS; w++) {
        int digit = bytes[31 - w] + carry;
        carry = digit > DIGITS;
        if (carry) digit -= 256;
        if (digit > 0) add_entry(list, table, w * DIGITS + digit - 1, negative);
        if (digit < 0) add_entry(list, table, w * DIGITS - digit - 1, !negative);
    }
    if (carry) add_entry(list, table, WINDOWS * DIGITS, negative);
    return 1;
}

/* The halves of a scalar: low + high·lambda. */
typedef struct {
    secp256k1_scalar low, high;
} halves;

static void split(halves *out, const unsigned char *scalar) {
    secp256k1_scalar k;
    secp256k1_scalar_set_b32(&k, scalar, NULL); /* reduced modulo the order, as the protocol has it */
    secp256k1_scalar_split_lambda(&out->low, &out->high, &k);
}

/* Multiples of a sum a·A + b·B: those of the low halves, and those of the high halves, still without lambda. */
static int select_multiples(
    addends *lists, const ra_table *first, const halves *a, const ra_table *second, const halves *b
) {
    lists[0].count = lists[1].count = 0;
    return add_half(&lists[0], first, a->low) && add_half(&lists[0], second, b->low) &&
           add_half(&lists[1], first, a->high) && add_half(&lists[1], second, b->high);
}

/* The sum of two points with different x, by the inverse of the difference of their x. */
static void add_affine(secp256k1_ge *sum, const secp256k1_ge *a, const secp256k1_ge *b, const secp256k1_fe *inverse) {
    secp256k1_fe slope, negated, x, y;
    secp256k1_fe_negate(&negated, &a->y, 2);
    slope = b->y;
    secp256k1_fe_add(&slope, &negated);
    secp256k1_fe_mul(&slope, &slope, inverse);
    secp256k1_fe_sqr(&x, &slope);
    secp256k1_fe_negate(&negated, &a->x, 1);
    secp256k1_fe_add(&x, &negated);
    secp256k1_fe_negate(&negated, &b->x, 1);
    secp256k1_fe_add(&x, &negated);
    secp256k1_fe_normalize_weak(&x);
    secp256k1_fe_negate(&y, &x, 1);
    secp256k1_fe_add(&y, &a->x);
    secp256k1_fe_mul(&y, &y, &slope);
    secp256k1_fe_negate(&negated, &a->y, 2);
    secp256k1_fe_add(&y, &negated);
    secp256k1_fe_normalize_weak(&y);
    secp256k1_ge_set_xy(sum, &x, &y);
}

/* Replace neighbours of all lists by their sums, with one inversion for all; 0, and no change, where two have the same x. */
static int add_neighbours(addends *lists, int number) {
    secp256k1_fe differences[2 * ADDENDS], products[2 * ADDENDS], inverse;
    int i, k, n = 0;
    for (k = 0; k < number; k++) {
        for (i = 0; i + 1 < lists[k].count; i += 2, n++) {
            secp256k1_fe_negate(&differences[n], &lists[k].points[i].x, 1);
            secp256k1_fe_add(&differences[n], &lists[k].points[i + 1].x);
            if (secp256k1_fe_normalizes_to_zero_var(&differences[n])) return 0;
            if (n == 0) products[n] = differences[n];
            else secp256k1_fe_mul(&products[n], &products[n - 1], &differences[n]);
        }
    }
    if (n == 0) return 0;
    secp256k1_fe_inv_var(&inverse, &products[n - 1]);
    for (i = n - 1; i > 0; i--) {
        secp256k1_fe_mul(&products[i], &inverse, &products[i - 1]); /* the inverse of the difference */
        secp256k1_fe_mul(&inverse, &inverse, &differences[i]);
    }
    products[0] = inverse;
    for (k = n = 0; k < number; k++) {
        secp256k1_ge *points = lists[k].points;
        for (i = 0; i + 1 < lists[k].count; i += 2, n++) {
            add_affine(&points[i / 2], &points[i], &points[i + 1], &products[n]);
        }
        if (i < lists[k].count) points[i / 2] = points[i];
        lists[k].count = (lists[k].count + 1) / 2;
    }
    return 1;
}

static void add_up(secp256k1_gej *sum, const addends *list) {
    int i;
    secp256k1_gej_set_infinity(sum);
    for (i = 0; i < list->count; i++) secp256k1_gej_add_ge_var(sum, sum, &list->points[i], NULL);
}

/* low + lambda·high */
static void join_halves(secp256k1_gej *sum, const addends *lists) {
    secp256k1_gej low, high;
    add_up(&low, &lists[0]);
    add_up(&high, &lists[1]);
    if (!secp256k1_gej_is_infinity(&high)) secp256k1_fe_mul(&high.x, &high.x, &secp256k1_const_beta);
    secp256k1_gej_add_var(sum, &low, &high, NULL);
}

/* The compressed form; infinity is 02 and 32 zero bytes. */
static void encode(unsigned char *out, secp256k1_ge *point) {
    if (secp256k1_ge_is_infinity(point)) {
        memset(out, 0, 33);
        out[0] = 2;
        return;
    }
    secp256k1_fe_normalize_var(&point->x);
    secp256k1_fe_normalize_var(&point->y);
    out[0] = secp256k1_fe_is_odd(&point->y) ? 3 : 2;
    secp256k1_fe_get_b32(out + 1, &point->x);
}

/* The compressed form of a·A + b·B into out[33]. 0 where it cannot tell. */
EXPORTED int ra_combine(
    unsigned char *out, const ra_table *first, const unsigned char *a, const ra_table *second, const unsigned char *b
) {
    addends lists[2];
    halves left, right;
    secp256k1_gej sum;
    secp256k1_ge point;
    split(&left, a);
    split(&right, b);
    if (!select_multiples(lists, first, &left, second, &right)) return 0;
    join_halves(&sum, lists);
    secp256k1_ge_set_gej_var(&point, &sum);
    encode(out, &point);
    return 1;
}

/* One member's sums of a ring, s·G + c·P and s·H + c·I, into out[66]: both from the same scalars, with the inversions in
 * common. Additions of affine points cost half of others while many share an inversion. 0 where it cannot tell. */
EXPORTED int ra_combine_pair(
    unsigned char *out, const ra_table *base, const ra_table *member, const ra_table *hashed, const ra_table *image,
    const unsigned char *s, const unsigned char *c
) {
    addends lists[4];
    halves response, challenge;
    secp256k1_gej sums[2];
    secp256k1_ge points[2];
    int i;
    split(&response, s);
    split(&challenge, c);
    if (!select_multiples(lists, base, &response, member, &challenge) ||
        !select_multiples(lists + 2, hashed, &response, image, &challenge)) return 0;
    for (i = 0; i < SHARED_INVERSIONS && add_neighbours(lists, 4); i++) {}
    join_halves(&sums[0], lists);
    join_halves(&sums[1], lists + 2);
    secp256k1_ge_set_all_gej_var(points, sums, 2);
    encode(out, &points[0]);
    encode(out + 33, &points[1]);
    return 1;
}
