/* Digests of subtrees of a sparse Merkle sum trie over sorted leaves (pocket.protocol.smst.bulk has the same in Python).
 *
 * A digest is 32 bytes of SHA-256, 8 of sum and 8 of count. A leaf is its digest and its 32-byte path.
 */
#include "sha256.h"

#define EXPORTED __attribute__((visibility("default")))
#define PATH 32
#define DIGEST 48
#define INNER (1 + 2 * DIGEST + 16)
#define NO_BRANCH (-1)

static sha256_blocks hash_blocks = sha256_portable;

/* Chooses the way to hash: 0 the portable one, 1 the processor's; returns what is in use from now on. */
EXPORTED int rt_use(int wanted) {
    hash_blocks = sha256_portable;
#ifdef HAVE_X86
    if (wanted && sha256_has_x86()) {
        hash_blocks = sha256_x86;
        return 1;
    }
#endif
    (void)wanted;
    return 0;
}

static uint64_t read64(const unsigned char *p) {
    return (uint64_t)sha256_read(p) << 32 | sha256_read(p + 4);
}

static void write64(unsigned char *p, uint64_t value) {
    sha256_write(p, (uint32_t)(value >> 32));
    sha256_write(p + 4, (uint32_t)value);
}

/* out = digest of the inner node over left and right; sums and counts wrap. `out` may be one of them. */
static void inner(unsigned char *out, const unsigned char *left, const unsigned char *right) {
    unsigned char block[128] = {1};
    uint32_t state[8];
    int i;
    memcpy(block + 1, left, DIGEST);
    memcpy(block + 1 + DIGEST, right, DIGEST);
    write64(block + 1 + 2 * DIGEST, read64(left + 32) + read64(right + 32));
    write64(block + 9 + 2 * DIGEST, read64(left + 40) + read64(right + 40));
    block[INNER] = 0x80;
    write64(block + 120, INNER * 8);
    memcpy(state, sha256_start, sizeof(state));
    hash_blocks(state, block, 2);
    for (i = 0; i < 8; i++) sha256_write(out + 4 * i, state[i]);
    memcpy(out + 32, block + 1 + 2 * DIGEST, 16);
}

static int bit(const unsigned char *path, int depth) {
    return path[depth >> 3] >> (7 - (depth & 7)) & 1;
}

/* An inner node's digest at `depth` seen from `to`, above it or the same. */
static void lift(unsigned char *digest, const unsigned char *path, int depth, int to) {
    static const unsigned char placeholder[DIGEST] = {0};
    while (depth > to) {
        depth--;
        if (bit(path, depth)) inner(digest, placeholder, digest);
        else inner(digest, digest, placeholder);
    }
}

/* Length of the common prefix in bits; -1 unless the first path is the smaller one. */
static int common_prefix(const unsigned char *first, const unsigned char *second) {
    int i;
    for (i = 0; i < PATH; i += 8) {
        uint64_t a = read64(first + i), b = read64(second + i);
        if (a != b) return a < b ? 8 * i + __builtin_clzll(a ^ b) : -1;
    }
    return -1;
}

typedef struct {
    unsigned char digest[DIGEST];
    const unsigned char *path;
    int branch; /* depth of the branch that it is the left side of */
    int depth;  /* of its own branch, NO_BRANCH for a leaf */
} waiting;

/* The trie of `count` leaves, joined from the deepest branch upwards.
 *
 * digest: of the topmost branch, or of the only leaf. children: of that branch, left and right; untouched for a leaf.
 * Returns the depth of the branch, NO_BRANCH for a leaf, -2 where the paths are not strictly sorted or there are none.
 */
EXPORTED int rt_build(
    const unsigned char *paths, const unsigned char *digests, size_t count, unsigned char *digest,
    unsigned char *children
) {
    waiting stack[8 * PATH + 1]; /* branches on it lie ever deeper */
    size_t i;
    int top = 0, depth = NO_BRANCH;
    if (count == 0) return -2;
    for (i = 0; i < count; i++) {
        const unsigned char *path = paths + i * PATH;
        int shared = -1;
        memcpy(digest, digests + i * DIGEST, DIGEST);
        depth = NO_BRANCH;
        if (i + 1 < count && (shared = common_prefix(path, path + PATH)) < 0) return -2;
        while (top > 0 && stack[top - 1].branch > shared) {
            waiting *left = &stack[--top];
            if (left->depth != NO_BRANCH) lift(left->digest, left->path, left->depth, left->branch + 1);
            if (depth != NO_BRANCH) lift(digest, path, depth, left->branch + 1);
            memcpy(children, left->digest, DIGEST);
            memcpy(children + DIGEST, digest, DIGEST);
            inner(digest, left->digest, digest);
            depth = left->branch;
        }
        if (i + 1 < count) {
            memcpy(stack[top].digest, digest, DIGEST);
            stack[top].path = path;
            stack[top].branch = shared;
            stack[top].depth = depth;
            top++;
        }
    }
    return depth;
}

/* SHA-256 of whole blocks after the start, for tests of both ways. */
EXPORTED void rt_hash_blocks(const unsigned char *data, size_t blocks, unsigned char *out) {
    uint32_t state[8];
    int i;
    memcpy(state, sha256_start, sizeof(state));
    hash_blocks(state, data, blocks);
    for (i = 0; i < 8; i++) sha256_write(out + 4 * i, state[i]);
}
