/* One step of MANN's memory and its derivative, for one episode (Santoro et al. 2016, equations 2 to 8 and 17 to 23).

   The same arithmetic as lib/memory/addressing.py and lib/memory/lrua.py, fused: tests hold it equal to them. Arrays
   are: memory [width][slots], that is, column by column; weights and cosines [heads][slots]; keys and reads
   [heads][width]. Here `slots` (P) is rounded up to whole vectors: the slots beyond the memory's own (N) stay zero, so
   that no loop needs an end of its own. The functions are inlined with a constant number of heads (H) where it is the
   paper's, for the compiler to unroll over them. */

#include <math.h>
#include <stdint.h>

#ifndef REAL
#define REAL float /* or double, in the tests */
#endif

#define EPSILON ((REAL)1e-8)    /* as in lib/memory/addressing.py */
#define HUGE_USAGE ((REAL)1e30) /* more than any slot has */
#define LANES ((int64_t)(32 / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

/* Left alone, GCC reads a vector from memory once more for each use: a product then waits for reads, not for sums. */
#ifdef __AVX__
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif

typedef REAL Vector __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));

INLINE Vector get(const REAL *from) { return *(const Vector *)from; }
INLINE void put(REAL *to, Vector value) { *(Vector *)to = value; }

INLINE REAL sum(Vector v) {
    REAL total = 0;
    for (int64_t i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* weights += keys * memory */
INLINE void match(int64_t H, int64_t P, int64_t M, const REAL *keys, const REAL *memory, REAL *weights) {
    for (int64_t i = 0; i < P; i += 2 * LANES) {
        Vector left[H], right[H];
        for (int64_t h = 0; h < H; h++) left[h] = get(weights + h * P + i), right[h] = get(weights + h * P + i + LANES);
        for (int64_t w = 0; w < M; w++) {
            const Vector a = get(memory + w * P + i), b = get(memory + w * P + i + LANES);
            for (int64_t h = 0; h < H; h++) left[h] += keys[h * M + w] * a, right[h] += keys[h * M + w] * b;
        }
        for (int64_t h = 0; h < H; h++) put(weights + h * P + i, left[h]), put(weights + h * P + i + LANES, right[h]);
    }
}

/* keys = weights * memory, transposed; a multiple of 2 columns at a time would not always fit the width */
INLINE void recall(int64_t H, int64_t P, int64_t M, const REAL *weights, const REAL *memory, REAL *keys) {
    for (int64_t w = 0; w < M; w++) {
        Vector left[H], right[H];
        for (int64_t h = 0; h < H; h++) left[h] = right[h] = (Vector){0};
        for (int64_t i = 0; i < P; i += 2 * LANES) {
            const Vector a = get(memory + w * P + i), b = get(memory + w * P + i + LANES);
            for (int64_t h = 0; h < H; h++)
                left[h] += get(weights + h * P + i) * a, right[h] += get(weights + h * P + i + LANES) * b;
        }
        for (int64_t h = 0; h < H; h++) keys[h * M + w] = sum(left[h] + right[h]);
    }
}

/* memory += sign * keys, transposed, * weights */
INLINE void store(int64_t H, int64_t P, int64_t M, REAL sign, const REAL *keys, const REAL *weights, REAL *memory) {
    for (int64_t i = 0; i < P; i += 2 * LANES) {
        Vector left[H], right[H];
        for (int64_t h = 0; h < H; h++)
            left[h] = sign * get(weights + h * P + i), right[h] = sign * get(weights + h * P + i + LANES);
        for (int64_t w = 0; w < M; w++) {
            Vector a = get(memory + w * P + i), b = get(memory + w * P + i + LANES);
            for (int64_t h = 0; h < H; h++) a += keys[h * M + w] * left[h], b += keys[h * M + w] * right[h];
            put(memory + w * P + i, a), put(memory + w * P + i + LANES, b);
        }
    }
}

INLINE REAL length_scale(const REAL *vector, int64_t width) { /* one over its length */
    REAL square = EPSILON;
    for (int64_t w = 0; w < width; w++) square += vector[w] * vector[w];
    return 1 / (REAL)sqrt(square);
}

INLINE REAL exponential(REAL x) { return sizeof(REAL) == 4 ? (REAL)expf((float)x) : (REAL)exp(x); }

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

    for (int64_t i = 0; i < P; i++) scale[i] = EPSILON; /* equation 2 */
    for (int64_t w = 0; w < M; w++)
        for (int64_t i = 0; i < P; i++) scale[i] += memory[w * P + i] * memory[w * P + i];
    for (int64_t i = 0; i < P; i++) scale[i] = 1 / (REAL)sqrt(scale[i]);
    for (int64_t i = 0; i < H * P; i++) cosine[i] = 0;
    match(H, P, M, read_keys, memory, cosine);
    for (int64_t h = 0; h < H; h++) {
        const REAL q = length_scale(read_keys + h * M, M);
        for (int64_t i = 0; i < P; i++) cosine[h * P + i] *= q * scale[i];
    }

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
   before: the write is taken back. So do d_memory and d_read_weights, which come in from the steps that follow. d_read
   is the controller's; d_read_keys, d_write_keys and d_gate go out. `scratch` has room for (heads + 1) * slots. */
INLINE void memory_backward(int64_t H, int64_t P, int64_t M, int64_t together, const REAL *read_keys,
                            const REAL *write_keys, const REAL *gate, const REAL *restrict last_read_weights,
                            const int64_t *chosen, const REAL *restrict erased, const REAL *restrict read_weights,
                            const REAL *restrict write_weights, const REAL *restrict cosine, const REAL *restrict scale,
                            const REAL *d_read, REAL *restrict memory, REAL *restrict d_memory,
                            REAL *restrict d_read_weights, REAL *d_read_keys, REAL *d_write_keys, REAL *d_gate,
                            REAL *restrict scratch) {
    REAL *restrict d_dot = scratch, *restrict pull = scratch + H * P; /* by the products of equation 2; by lengths */
    REAL along[H]; /* of each key: how the loss pulls it along itself */

    match(H, P, M, d_read, memory, d_read_weights); /* equation 4 */
    store(H, P, M, 1, d_read, read_weights, d_memory);

    for (int64_t i = 0; i < P; i++) pull[i] = 0; /* equations 3 and 2 */
    for (int64_t h = 0; h < H; h++) {
        const REAL q = length_scale(read_keys + h * M, M);
        REAL mean = 0, total = 0;
        for (int64_t i = 0; i < P; i++) mean += read_weights[h * P + i] * d_read_weights[h * P + i];
        for (int64_t i = 0; i < P; i++) {
            const REAL d_cosine = read_weights[h * P + i] * (d_read_weights[h * P + i] - mean);
            total += d_cosine * cosine[h * P + i];
            pull[i] += d_cosine * cosine[h * P + i];
            d_dot[h * P + i] = d_cosine * q * scale[i];
        }
        along[h] = total * q * q;
    }
    for (int64_t i = 0; i < P; i++) pull[i] *= scale[i] * scale[i];
    for (int64_t w = 0; w < M; w++)
        for (int64_t i = 0; i < P; i++) d_memory[w * P + i] -= pull[i] * memory[w * P + i];
    store(H, P, M, 1, read_keys, d_dot, d_memory);
    recall(H, P, M, d_dot, memory, d_read_keys);
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < M; w++) d_read_keys[h * M + w] -= along[h] * read_keys[h * M + w];

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
