/* Built with sanitizers by the tests: lines "A a B b" in hex on standard input, the sum of each on standard output.
 * The lines are computed by several threads that share the tables. The second half of a pair must be the same sum. */
#include <pthread.h>
#include <stdio.h>

#include "combine.c"

#define THREADS 4
#define MOST 4096

typedef struct {
    unsigned char a[32], b[32], out[33], pair[66];
    const ra_table *first, *second;
    int told;
} task;

static task tasks[MOST];
static int count;

static void *work(void *start) {
    int i;
    for (i = *(int *)start; i < count; i += THREADS) {
        task *row = &tasks[i];
        row->told = ra_combine(row->out, row->first, row->a, row->second, row->b) &&
                    ra_combine_pair(row->pair, row->second, row->first, row->first, row->second, row->a, row->b) &&
                    memcmp(row->out, row->pair + 33, 33) == 0;
    }
    return NULL;
}

static int unhex(unsigned char *out, const char *text, int length) {
    int i;
    for (i = 0; i < length; i++) {
        if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1) return 0;
    }
    return 1;
}

int main(void) {
    char first[67], a[65], second[67], b[65];
    unsigned char point[33];
    pthread_t threads[THREADS];
    int starts[THREADS], i, k;
    while (count < MOST && scanf("%66s %64s %66s %64s", first, a, second, b) == 4) {
        task *row = &tasks[count++];
        if (!unhex(point, first, 33) || !unhex(row->a, a, 32)) return 2;
        row->first = ra_table_new(point);
        if (!unhex(point, second, 33) || !unhex(row->b, b, 32)) return 2;
        row->second = ra_table_new(point);
        if (row->first == NULL || row->second == NULL) return 3;
    }
    for (i = 0; i < THREADS; i++) {
        starts[i] = i;
        if (pthread_create(&threads[i], NULL, work, &starts[i])) return 4;
    }
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < count; i++) {
        if (!tasks[i].told) return 5;
        for (k = 0; k < 33; k++) printf("%02x", tasks[i].out[k]);
        printf("\n");
        ra_table_free((ra_table *)tasks[i].first);
        ra_table_free((ra_table *)tasks[i].second);
    }
    return 0;
}
