/* One step of MANN's memory and its derivative, for one episode (Santoro et al. 2016, equations 2 to 8 and 17 to 23).

   The same arithmetic as lib/memory/addressing.py and lib/memory/lrua.py, fused; arrays are as in addressing.h. */

#include "addressing.h"

#define HUGE_USAGE ((REAL)1e30) /* more than any slot has */

/* The `heads` slots of least usage, the least used first, the lowest index first among equals (equation 6). `usage` is
   spoilt. */
static void least_used_slots(REAL *restrict usage, int64_t slots, int64_t heads, int64_t *restrict chosen) {
    for (int64_t h = 0; h < heads; h++) {
        REAL least = usage[0];
        for (int64_t i = 1; i < slots; i++) least = usage[i] < least ? usage[i] : least;
        int64_t first = 0;
        while (first < slots - 1 && !(usage[first] <= least)) first++;
        chosen[h] = first;
        usage[first] = HUGE_USAGE;
    }
}

/* From the controller's keys and gates, the last read weights and the least used slots to what the step gives. Memory
   and usage change in place; what the write erases, [heads][width], is kept to take the write back. `scale` is one over
   a slot's length, [slots]. `scratch` has room for slots. */
INLINE void memory_forward(int64_t H, int64_t N, int64_t P, int64_t M, int64_t together, REAL decay,
                           const REAL *read_keys, const REAL *write_keys, const REAL *gate,
                           const REAL *restrict last_read_weights, const int64_t *chosen, REAL *restrict memory,
                           REAL *restrict usage, REAL *restrict erased, REAL *restrict read_weights,
                           REAL *restrict write_weights, int64_t *least_used, REAL *restrict cosine,
                           REAL *restrict scale, REAL *read, REAL *restrict scratch) {
    for (int64_t h = 0; h < H; h++) { /* equation 7 */
        for (int64_t i = 0; i < P; i++) write_weights[h * P + i] = gate[h] * last_read_weights[h * P + i];
        for (int64_t j = 0; j < H; j++)
            if (together || j == h) write_weights[h * P + chosen[j]] += 1 - gate[h];
    }

    for (int64_t j = 0; j < H; j++) /* equation 8 */
        for (int64_t w = 0; w < M; w++) {
            erased[j * M + w] = memory[w * P + chosen[j]];
            memory[w * P + chosen[j]] = 0;
        }
    store(H, P, M, 1, write_keys, write_weights, memory);

    slot_scales(P, M, memory, scale); /* equation 2 */
    cosine_forward(H, P, M, read_keys, memory, scale, cosine);

    /* equation 3; a cosine needs no shift to be safe */
    for (int64_t i = 0; i < H * P; i++) read_weights[i] = exponential(cosine[i]);
    for (int64_t h = 0; h < H; h++) {
        REAL total = 0;
        for (int64_t i = N; i < P; i++) read_weights[h * P + i] = 0;
        for (int64_t i = 0; i < P; i++) total += read_weights[h * P + i];
        for (int64_t i = 0; i < P; i++) read_weights[h * P + i] *= 1 / total;
    }
    recall(H, P, M, read_weights, memory, read); /* equation 4 */

    for (int64_t i = 0; i < P; i++) usage[i] *= decay; /* equation 5 */
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < P; i++) usage[i] += read_weights[h * P + i] + write_weights[h * P + i];
    for (int64_t i = 0; i < P; i++) scratch[i] = usage[i];
    least_used_slots(scratch, N, H, least_used);
}

/* The derivative; `d_x` is the loss's derivative by x. `memory` comes in as it is after the step and leaves as it was
   before, to rounding: the write is taken back. So do d_memory and d_read_weights, which come in from the steps that follow. d_read
   is the controller's; d_read_keys, d_write_keys and d_gate go out. `scratch` has room for (heads + 1) * slots. */
INLINE void memory_backward(int64_t H, int64_t P, int64_t M, int64_t together, const REAL *read_keys,
                            const REAL *write_keys, const REAL *gate, const REAL *restrict last_read_weights,
                            const int64_t *chosen, const REAL *restrict erased, const REAL *restrict read_weights,
                            const REAL *restrict write_weights, const REAL *restrict cosine, const REAL *restrict scale,
                            const REAL *d_read, REAL *restrict memory, REAL *restrict d_memory,
                            REAL *restrict d_read_weights, REAL *d_read_keys, REAL *d_write_keys, REAL *d_gate,
                            REAL *restrict scratch) {
    REAL *restrict d_cosine = scratch;

    match(H, P, M, d_read, memory, d_read_weights); /* equation 4 */
    store(H, P, M, 1, d_read, read_weights, d_memory);

    for (int64_t h = 0; h < H; h++) { /* equation 3 */
        REAL mean = 0;
        for (int64_t i = 0; i < P; i++) mean += read_weights[h * P + i] * d_read_weights[h * P + i];
        for (int64_t i = 0; i < P; i++)
            d_cosine[h * P + i] = read_weights[h * P + i] * (d_read_weights[h * P + i] - mean);
    }
    cosine_backward(H, P, M, read_keys, memory, scale, cosine, d_cosine, d_memory, d_read_keys, scratch + H * P);

    recall(H, P, M, write_weights, d_memory, d_write_keys); /* equation 8 */
    for (int64_t i = 0; i < H * P; i++) d_read_weights[i] = 0; /* spent: from here on it is by the write weights */
    match(H, P, M, write_keys, d_memory, d_read_weights);
    store(H, P, M, -1, write_keys, write_weights, memory);
    for (int64_t j = 0; j < H; j++)
        for (int64_t w = 0; w < M; w++) {
            d_memory[w * P + chosen[j]] = 0;
            memory[w * P + chosen[j]] = erased[j * M + w];
        }

    for (int64_t h = 0; h < H; h++) { /* equation 7 */
        REAL total = 0;
        for (int64_t i = 0; i < P; i++) total += d_read_weights[h * P + i] * last_read_weights[h * P + i];
        for (int64_t j = 0; j < H; j++)
            if (together || j == h) total -= d_read_weights[h * P + chosen[j]];
        d_gate[h] = total;
        for (int64_t i = 0; i < P; i++) d_read_weights[h * P + i] *= gate[h];
    }
}
