/* Vectors, and the products of keys, weights and a memory that addressing by content is made of, with derivatives.

   The same arithmetic as lib/memory/addressing.py: tests hold the kernels equal to the plain code. Arrays are: memory
   [width][slots], that is, column by column; weights and cosines [heads][slots]; keys and reads [heads][width]. Here
   `slots` (P) is rounded up, for the products take two vectors at a time; the memory is zero beyond its own slots (N), and
   so are all weights. `d_x` is the loss's derivative by x. The functions are inlined with a constant number of heads (H)
   where it is the paper's, for the compiler to unroll over them. */

#pragma once

#include <math.h>
#include <stdint.h>

#ifndef REAL
#define REAL float /* or double, in the tests */
#endif

#define EPSILON ((REAL)1e-8)    /* as in lib/memory/addressing.py */
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

/* Of each slot, one over its length. */
INLINE void slot_scales(int64_t P, int64_t M, const REAL *restrict memory, REAL *restrict scale) {
    for (int64_t i = 0; i < P; i++) scale[i] = EPSILON;
    for (int64_t w = 0; w < M; w++)
        for (int64_t i = 0; i < P; i++) scale[i] += memory[w * P + i] * memory[w * P + i];
    for (int64_t i = 0; i < P; i++) scale[i] = 1 / (REAL)sqrt(scale[i]);
}

/* Santoro et al., equation 2 */
INLINE void cosine_forward(int64_t H, int64_t P, int64_t M, const REAL *keys, const REAL *memory,
                           const REAL *restrict scale, REAL *restrict cosine) {
    for (int64_t i = 0; i < H * P; i++) cosine[i] = 0;
    match(H, P, M, keys, memory, cosine);
    for (int64_t h = 0; h < H; h++) {
        const REAL q = length_scale(keys + h * M, M);
        for (int64_t i = 0; i < P; i++) cosine[h * P + i] *= q * scale[i];
    }
}

/* d_memory gets this part added; d_keys goes out. d_cosine is spoilt. `pull` has room for slots. */
INLINE void cosine_backward(int64_t H, int64_t P, int64_t M, const REAL *keys, const REAL *restrict memory,
                            const REAL *restrict scale, const REAL *restrict cosine, REAL *restrict d_cosine,
                            REAL *restrict d_memory, REAL *restrict d_keys, REAL *restrict pull) {
    REAL along[H]; /* how the loss pulls each key along itself; `pull` says so of each slot */
    for (int64_t i = 0; i < P; i++) pull[i] = 0;
    for (int64_t h = 0; h < H; h++) {
        const REAL q = length_scale(keys + h * M, M);
        REAL total = 0;
        for (int64_t i = 0; i < P; i++) {
            const REAL by_length = d_cosine[h * P + i] * cosine[h * P + i];
            total += by_length;
            pull[i] += by_length;
            d_cosine[h * P + i] *= q * scale[i]; /* from here on it is by the product of key and slot */
        }
        along[h] = total * q * q;
    }
    for (int64_t i = 0; i < P; i++) pull[i] *= scale[i] * scale[i];
    for (int64_t w = 0; w < M; w++)
        for (int64_t i = 0; i < P; i++) d_memory[w * P + i] -= pull[i] * memory[w * P + i];
    store(H, P, M, 1, keys, d_cosine, d_memory);
    recall(H, P, M, d_cosine, memory, d_keys);
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < M; w++) d_keys[h * M + w] -= along[h] * keys[h * M + w];
}
