/* Least recently used access and its derivative, for one episode (Santoro et al. 2016, equations 2 to 8 and 17 to 23).

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

/* Equations 7 and 8: `keys` go to the slots that were read last and to the `chosen` ones, which are set to zero first. The
   memory changes in place; what is set to zero, [heads][width], is kept to take the write back. `together`: every head
   writes to all chosen slots; else head j to the j-th. */
INLINE void write_forward(int64_t H, int64_t P, int64_t M, int64_t together, const REAL *keys, const REAL *gate,
                          const REAL *restrict last_read_weights, const int64_t *chosen, REAL *restrict memory,
                          REAL *restrict erased, REAL *restrict write_weights) {
    for (int64_t h = 0; h < H; h++) {
        for (int64_t i = 0; i < P; i++) write_weights[h * P + i] = gate[h] * last_read_weights[h * P + i];
        for (int64_t j = 0; j < H; j++)
            if (together || j == h) write_weights[h * P + chosen[j]] += 1 - gate[h];
    }
    for (int64_t j = 0; j < H; j++)
        for (int64_t w = 0; w < M; w++) {
            erased[j * M + w] = memory[w * P + chosen[j]];
            memory[w * P + chosen[j]] = 0;
        }
    store(H, P, M, 1, keys, write_weights, memory);
}

/* Equations 2 and 3. `scale` is one over a slot's length, [slots]. */
INLINE void address_forward(int64_t H, int64_t N, int64_t P, int64_t M, const REAL *keys, const REAL *memory,
                            REAL *restrict read_weights, REAL *restrict cosine, REAL *restrict scale) {
    slot_scales(P, M, memory, scale);
    cosine_forward(H, P, M, keys, memory, scale, cosine);
    /* a cosine needs no shift to be safe */
    for (int64_t i = 0; i < H * P; i++) read_weights[i] = exponential(cosine[i]);
    for (int64_t h = 0; h < H; h++) {
        REAL total = 0;
        for (int64_t i = N; i < P; i++) read_weights[h * P + i] = 0;
        for (int64_t i = 0; i < P; i++) total += read_weights[h * P + i];
        for (int64_t i = 0; i < P; i++) read_weights[h * P + i] *= 1 / total;
    }
}

/* Equations 5 and 6. `usage` changes in place. `scratch` has room for slots. */
INLINE void usage_forward(int64_t H, int64_t N, int64_t P, REAL decay, const REAL *restrict read_weights,
                          const REAL *restrict write_weights, REAL *restrict usage, int64_t *least_used,
                          REAL *restrict scratch) {
    for (int64_t i = 0; i < P; i++) usage[i] *= decay;
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < P; i++) usage[i] += read_weights[h * P + i] + write_weights[h * P + i];
    for (int64_t i = 0; i < P; i++) scratch[i] = usage[i];
    least_used_slots(scratch, N, H, least_used);
}

/* The derivative of `address_forward`. d_memory gets this part added, d_keys goes out. `scratch` has room for
   (heads + 1) * slots. */
INLINE void address_backward(int64_t H, int64_t P, int64_t M, const REAL *keys, const REAL *restrict memory,
                             const REAL *restrict read_weights, const REAL *restrict cosine,
                             const REAL *restrict scale, const REAL *restrict d_read_weights, REAL *restrict d_memory,
                             REAL *d_keys, REAL *restrict scratch) {
    REAL *restrict d_cosine = scratch;
    for (int64_t h = 0; h < H; h++) { /* equation 3 */
        REAL mean = 0;
        for (int64_t i = 0; i < P; i++) mean += read_weights[h * P + i] * d_read_weights[h * P + i];
        for (int64_t i = 0; i < P; i++)
            d_cosine[h * P + i] = read_weights[h * P + i] * (d_read_weights[h * P + i] - mean);
    }
    cosine_backward(H, P, M, keys, memory, scale, cosine, d_cosine, d_memory, d_keys, scratch + H * P);
}

/* The derivative of `write_forward`. `memory` and d_memory come in as after the write and leave as before it, to
   rounding: the write is taken back. d_weights comes in as by the write weights, from whoever else uses them, and leaves as by the last read
   weights. d_keys and d_gate go out. */
INLINE void write_backward(int64_t H, int64_t P, int64_t M, int64_t together, const REAL *keys, const REAL *gate,
                           const REAL *restrict last_read_weights, const int64_t *chosen, const REAL *restrict erased,
                           const REAL *restrict write_weights, REAL *restrict memory, REAL *restrict d_memory,
                           REAL *restrict d_weights, REAL *d_keys, REAL *d_gate) {
    recall(H, P, M, write_weights, d_memory, d_keys); /* equation 8 */
    match(H, P, M, keys, d_memory, d_weights);
    store(H, P, M, -1, keys, write_weights, memory);
    for (int64_t j = 0; j < H; j++)
        for (int64_t w = 0; w < M; w++) {
            d_memory[w * P + chosen[j]] = 0;
            memory[w * P + chosen[j]] = erased[j * M + w];
        }

    for (int64_t h = 0; h < H; h++) { /* equation 7 */
        REAL total = 0;
        for (int64_t i = 0; i < P; i++) total += d_weights[h * P + i] * last_read_weights[h * P + i];
        for (int64_t j = 0; j < H; j++)
            if (together || j == h) total -= d_weights[h * P + chosen[j]];
        d_gate[h] = total;
        for (int64_t i = 0; i < P; i++) d_weights[h * P + i] *= gate[h];
    }
}
