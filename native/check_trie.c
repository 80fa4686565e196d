/* Built with sanitizers by the tests: lines "PATH DIGEST" in hex on standard input, then for both ways to hash the
 * depth, digest and children of every run of leaves that begins with the first, each in memory of exactly its size. */
#include <stdio.h>
#include <stdlib.h>

#include "trie.c"

#define MOST 1024

static int unhex(unsigned char *out, const char *text, int length) {
    int i;
    for (i = 0; i < length; i++) {
        if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1) return 0;
    }
    return 1;
}

static void show(const unsigned char *data, int length) {
    int i;
    for (i = 0; i < length; i++) printf("%02x", data[i]);
}

int main(void) {
    static unsigned char paths[MOST * PATH], digests[MOST * DIGEST];
    char path[65], digest[97];
    size_t count = 0, n;
    int processor;
    while (count < MOST && scanf("%64s %96s", path, digest) == 2) {
        if (!unhex(paths + count * PATH, path, PATH) || !unhex(digests + count * DIGEST, digest, DIGEST)) return 2;
        count++;
    }
    for (processor = 0; processor < 2; processor++) {
        rt_use(processor);
        for (n = 0; n <= count; n++) {
            unsigned char *p = malloc(n * PATH + 1), *d = malloc(n * DIGEST + 1), *out = calloc(1, DIGEST), *two;
            int depth;
            two = calloc(2, DIGEST);
            if (!p || !d || !out || !two) return 3;
            memcpy(p, paths, n * PATH);
            memcpy(d, digests, n * DIGEST);
            depth = rt_build(p, d, n, out, two);
            printf("%d ", depth);
            show(out, DIGEST);
            printf(" ");
            show(two, 2 * DIGEST);
            printf("\n");
            free(p);
            free(d);
            free(out);
            free(two);
        }
    }
    return 0;
}
