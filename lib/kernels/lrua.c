/* One step of MANN's memory and its derivative, for the CPU (Santoro et al. 2016, equations 2 to 8 and 17 to 23).

   The same arithmetic as lib/memory/addressing.py and lib/memory/lrua.py, fused: tests hold it equal to them. A memory
   is kept column by column, [width][slots], so that the innermost loop always runs over slots, and vectorises.
   Episodes are independent; the caller may split a batch over threads.

   REAL is float, or double in the tests. */

#include <math.h>
#include <stdint.h>

#ifndef REAL
#define REAL float
#endif

#define EPSILON ((REAL)1e-8)     /* as in lib/memory/addressing.py */
#define HUGE_USAGE ((REAL)1e30) /* more than any slot has */

typedef struct {
    int64_t batch, heads, slots, width;
    int64_t together;   /* every head writes to all least used slots; else head j to the j-th */
    int64_t key_stride; /* from one episode's keys to the next one's */
    REAL decay;
} Sizes;

/* The three products that a step is made of, over one episode: `keys` are [heads][width], `weights` [heads][slots] and
   `memory` [width][slots]. Inlined below with a constant number of heads, so that the compiler unrolls over them. */
#define INLINE static inline __attribute__((always_inline))
#define BLOCK 16 /* slots whose sums stay in registers */

/* weights += keys * memory */
INLINE void match(int64_t H, int64_t N, int64_t M, const REAL *restrict keys, const REAL *restrict memory,
                  REAL *restrict weights) {
    int64_t start = 0;
    for (; start + BLOCK <= N; start += BLOCK) {
        REAL sums[H][BLOCK];
        for (int64_t h = 0; h < H; h++)
            for (int i = 0; i < BLOCK; i++) sums[h][i] = weights[h * N + start + i];
        for (int64_t w = 0; w < M; w++)
            for (int64_t h = 0; h < H; h++)
                for (int i = 0; i < BLOCK; i++) sums[h][i] += keys[h * M + w] * memory[w * N + start + i];
        for (int64_t h = 0; h < H; h++)
            for (int i = 0; i < BLOCK; i++) weights[h * N + start + i] = sums[h][i];
    }
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < M; w++)
            for (int64_t i = start; i < N; i++) weights[h * N + i] += keys[h * M + w] * memory[w * N + i];
}

/* keys = weights * memory, transposed */
INLINE void recall(int64_t H, int64_t N, int64_t M, const REAL *restrict weights, const REAL *restrict memory,
                   REAL *restrict keys) {
    for (int64_t w = 0; w < M; w++) {
        REAL sums[H];
        for (int64_t h = 0; h < H; h++) sums[h] = 0;
        for (int64_t i = 0; i < N; i++)
            for (int64_t h = 0; h < H; h++) sums[h] += weights[h * N + i] * memory[w * N + i];
        for (int64_t h = 0; h < H; h++) keys[h * M + w] = sums[h];
    }
}

/* memory += keys, transposed, * weights */
INLINE void store(int64_t H, int64_t N, int64_t M, const REAL *restrict keys, const REAL *restrict weights,
                  REAL *restrict memory) {
    for (int64_t w = 0; w < M; w++)
        for (int64_t i = 0; i < N; i++) {
            REAL sum = memory[w * N + i];
            for (int64_t h = 0; h < H; h++) sum += keys[h * M + w] * weights[h * N + i];
            memory[w * N + i] = sum;
        }
}

INLINE REAL length_scale(const REAL *vector, int64_t width) { /* one over its length */
    REAL square = EPSILON;
    for (int64_t w = 0; w < width; w++) square += vector[w] * vector[w];
    return 1 / (REAL)sqrt(square);
}

INLINE void exponentials(REAL *restrict to, const REAL *restrict from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = sizeof(REAL) == 4 ? (REAL)expf((float)from[i]) : (REAL)exp(from[i]);
}

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

/* From the state before the step (memory, usage, read weights, least used slots) and the controller's keys and gates
   to the state after it. Arrays are [batch] of: memory [width][slots]; weights and cosines [heads][slots]; keys and
   read [heads][width]; gate [heads]; usage and scale (one over a slot's length) [slots]; least_used [heads]. `scratch`
   has room for slots. */
INLINE void forward(const Sizes *sizes, int64_t H, int64_t N, int64_t M,
                    const REAL *memory_before, const REAL *usage_before,
                    const REAL *read_weights_before, const int64_t *least_used_before, const REAL *read_keys,
                    const REAL *write_keys, const REAL *gate, REAL *memory, REAL *usage, REAL *read_weights,
                    REAL *write_weights, int64_t *least_used, REAL *cosine, REAL *scale, REAL *read, REAL *scratch) {
    for (int64_t b = 0; b < sizes->batch; b++) {
        const REAL *restrict before = memory_before + b * M * N, *restrict wr0 = read_weights_before + b * H * N;
        const REAL *kr = read_keys + b * sizes->key_stride, *kw = write_keys + b * sizes->key_stride;
        const REAL *g = gate + b * H, *u0 = usage_before + b * N;
        const int64_t *chosen = least_used_before + b * H;
        REAL *restrict mem = memory + b * M * N, *restrict wr = read_weights + b * H * N;
        REAL *restrict ww = write_weights + b * H * N, *restrict cos = cosine + b * H * N;
        REAL *restrict s = scale + b * N, *restrict u = usage + b * N;

        for (int64_t h = 0; h < H; h++) { /* equation 7 */
            for (int64_t i = 0; i < N; i++) ww[h * N + i] = g[h] * wr0[h * N + i];
            for (int64_t j = 0; j < H; j++)
                if (sizes->together || j == h) ww[h * N + chosen[j]] += 1 - g[h];
        }

        for (int64_t i = 0; i < M * N; i++) mem[i] = before[i]; /* equation 8 */
        for (int64_t w = 0; w < M; w++)
            for (int64_t j = 0; j < H; j++) mem[w * N + chosen[j]] = 0;
        store(H, N, M, kw, ww, mem);

        for (int64_t i = 0; i < N; i++) s[i] = EPSILON; /* equation 2 */
        for (int64_t w = 0; w < M; w++)
            for (int64_t i = 0; i < N; i++) s[i] += mem[w * N + i] * mem[w * N + i];
        for (int64_t i = 0; i < N; i++) s[i] = 1 / (REAL)sqrt(s[i]);
        for (int64_t i = 0; i < H * N; i++) cos[i] = 0;
        match(H, N, M, kr, mem, cos);
        for (int64_t h = 0; h < H; h++) {
            const REAL q = length_scale(kr + h * M, M);
            for (int64_t i = 0; i < N; i++) cos[h * N + i] *= q * s[i];
        }

        exponentials(wr, cos, H * N); /* equation 3; a cosine needs no shift to be safe */
        for (int64_t h = 0; h < H; h++) {
            REAL total = 0;
            for (int64_t i = 0; i < N; i++) total += wr[h * N + i];
            for (int64_t i = 0; i < N; i++) wr[h * N + i] *= 1 / total;
        }
        recall(H, N, M, wr, mem, read + b * H * M); /* equation 4 */

        for (int64_t i = 0; i < N; i++) u[i] = sizes->decay * u0[i]; /* equation 5 */
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < N; i++) u[i] += wr[h * N + i] + ww[h * N + i];
        for (int64_t i = 0; i < N; i++) scratch[i] = u[i];
        least_used_slots(scratch, N, H, least_used + b * H);
    }
}

/* The derivative. `d_x` is the loss's derivative by x. d_memory and d_read_weights come in as those of the state after
   the step, from the steps that follow, and leave as those of the state before it. d_read is the controller's; out go
   d_read_keys and d_write_keys, side by side in each episode, and d_gate. `scratch` has room for
   (heads + 1) * slots. */
INLINE void backward(const Sizes *sizes, int64_t H, int64_t N, int64_t M,
                     const REAL *memory, const REAL *read_weights, const REAL *write_weights,
                     const REAL *cosine, const REAL *scale, const REAL *read_weights_before,
                     const int64_t *least_used_before, const REAL *read_keys, const REAL *write_keys,
                     const REAL *gate, const REAL *d_read, REAL *d_memory, REAL *d_read_weights, REAL *d_read_keys,
                     REAL *d_write_keys, REAL *d_gate, REAL *scratch) {
    REAL *restrict ddot = scratch, *restrict pull = scratch + H * N; /* by the products of equation 2; by lengths */
    for (int64_t b = 0; b < sizes->batch; b++) {
        const REAL *restrict mem = memory + b * M * N, *restrict wr = read_weights + b * H * N;
        const REAL *restrict ww = write_weights + b * H * N, *restrict cos = cosine + b * H * N;
        const REAL *restrict s = scale + b * N, *restrict wr0 = read_weights_before + b * H * N;
        const REAL *kr = read_keys + b * sizes->key_stride, *kw = write_keys + b * sizes->key_stride;
        const REAL *dr = d_read + b * H * M, *g = gate + b * H;
        const int64_t *chosen = least_used_before + b * H;
        REAL *restrict dmem = d_memory + b * M * N, *restrict dwr = d_read_weights + b * H * N;
        REAL *restrict dkr = d_read_keys + b * 2 * H * M, *restrict dkw = d_write_keys + b * 2 * H * M;

        match(H, N, M, dr, mem, dwr); /* equation 4 */
        store(H, N, M, dr, wr, dmem);

        REAL along[H]; /* equations 3 and 2; of each key: how the loss pulls it along itself */
        for (int64_t i = 0; i < N; i++) pull[i] = 0;
        for (int64_t h = 0; h < H; h++) {
            const REAL q = length_scale(kr + h * M, M);
            REAL mean = 0, sum = 0;
            for (int64_t i = 0; i < N; i++) mean += wr[h * N + i] * dwr[h * N + i];
            for (int64_t i = 0; i < N; i++) {
                const REAL dcos = wr[h * N + i] * (dwr[h * N + i] - mean);
                sum += dcos * cos[h * N + i];
                pull[i] += dcos * cos[h * N + i];
                ddot[h * N + i] = dcos * q * s[i];
            }
            along[h] = sum * q * q;
        }
        for (int64_t i = 0; i < N; i++) pull[i] *= s[i] * s[i];
        for (int64_t w = 0; w < M; w++)
            for (int64_t i = 0; i < N; i++) dmem[w * N + i] -= pull[i] * mem[w * N + i];
        store(H, N, M, kr, ddot, dmem);
        recall(H, N, M, ddot, mem, dkr);
        for (int64_t h = 0; h < H; h++)
            for (int64_t w = 0; w < M; w++) dkr[h * M + w] -= along[h] * kr[h * M + w];

        recall(H, N, M, ww, dmem, dkw); /* equation 8 */
        for (int64_t i = 0; i < H * N; i++) dwr[i] = 0; /* spent: from here on it is by the write weights */
        match(H, N, M, kw, dmem, dwr);
        for (int64_t w = 0; w < M; w++)
            for (int64_t j = 0; j < H; j++) dmem[w * N + chosen[j]] = 0;

        for (int64_t h = 0; h < H; h++) { /* equation 7 */
            REAL sum = 0;
            for (int64_t i = 0; i < N; i++) sum += dwr[h * N + i] * wr0[h * N + i];
            for (int64_t j = 0; j < H; j++)
                if (sizes->together || j == h) sum -= dwr[h * N + chosen[j]];
            d_gate[b * H + h] = sum;
            for (int64_t i = 0; i < N; i++) dwr[h * N + i] *= g[h];
        }
    }
}

/* The two functions that are called. With the paper's sizes as constants the compiler unrolls and vectorises best. */
#define WITH_SIZES(step, ...)                                                            \
    do {                                                                                 \
        if (sizes->heads == 4 && sizes->slots == 128 && sizes->width == 40)              \
            step(sizes, 4, 128, 40, __VA_ARGS__);                                        \
        else                                                                             \
            step(sizes, sizes->heads, sizes->slots, sizes->width, __VA_ARGS__);          \
    } while (0)

void memory_forward(const Sizes *sizes, const REAL *memory_before, const REAL *usage_before,
                    const REAL *read_weights_before, const int64_t *least_used_before, const REAL *read_keys,
                    const REAL *write_keys, const REAL *gate, REAL *memory, REAL *usage, REAL *read_weights,
                    REAL *write_weights, int64_t *least_used, REAL *cosine, REAL *scale, REAL *read, REAL *scratch) {
    WITH_SIZES(forward, memory_before, usage_before, read_weights_before, least_used_before, read_keys, write_keys,
               gate, memory, usage, read_weights, write_weights, least_used, cosine, scale, read, scratch);
}

void memory_backward(const Sizes *sizes, const REAL *memory, const REAL *read_weights, const REAL *write_weights,
                     const REAL *cosine, const REAL *scale, const REAL *read_weights_before,
                     const int64_t *least_used_before, const REAL *read_keys, const REAL *write_keys,
                     const REAL *gate, const REAL *d_read, REAL *d_memory, REAL *d_read_weights, REAL *d_read_keys,
                     REAL *d_write_keys, REAL *d_gate, REAL *scratch) {
    WITH_SIZES(backward, memory, read_weights, write_weights, cosine, scale, read_weights_before, least_used_before,
               read_keys, write_keys, gate, d_read, d_memory, d_read_weights, d_read_keys, d_write_keys, d_gate,
               scratch);
}
