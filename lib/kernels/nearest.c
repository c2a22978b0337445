/* One query and all keys, for the search of its nearest: as fast as the keys can be read. One key after the other, for a
   processor fetches ahead what is read in order. */

#include <stdint.h>

#ifndef REAL
#define REAL float /* or double, in the tests */
#endif

static REAL distance(int64_t width, const REAL *restrict key, const REAL *restrict query) {
    REAL total = 0;
    for (int64_t w = 0; w < width; w++) {
        const REAL difference = key[w] - query[w];
        total += difference * difference;
    }
    return total;
}

/* Of each key its squared distance from the query; keys are [held][width]. */
void distances_of_one(int64_t threads, int64_t held, int64_t width, const REAL *keys, const REAL *query,
                      REAL *distances) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < held; i++) distances[i] = distance(width, keys + i * width, query);
}
