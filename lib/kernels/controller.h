/* What the kernels share besides the memory: products with panels of weights, the LSTM's own part with its derivative,
   and how threads share a batch. */

#pragma once

#include "addressing.h"

#define BLOCK 16   /* episodes at most: as many as share the reading of a weight, and whose memories fit the cache */
#define ROWS 4     /* of a product at a time, with COLUMNS sums each that stay in registers */
#define COLUMNS 24 /* as in lib/kernels/unrolled.py */

INLINE void multiply(int64_t rows, int64_t depth, int64_t columns, const REAL *x, int64_t x_stride, const REAL *panel,
                     REAL *y, int64_t y_stride) {
    Vector sums[rows][COLUMNS / LANES];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < COLUMNS / LANES; c++) sums[r][c] = (Vector){0};
    for (int64_t k = 0; k < depth; k++) {
        Vector weights[COLUMNS / LANES];
        for (int64_t c = 0; c < COLUMNS / LANES; c++) {
            weights[c] = get(panel + k * COLUMNS + c * LANES);
            IN_REGISTER(weights[c]);
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < COLUMNS / LANES; c++) sums[r][c] += x[r * x_stride + k] * weights[c];
    }
    for (int64_t r = 0; r < rows; r++) {
        if (columns == COLUMNS)
            for (int64_t c = 0; c < COLUMNS / LANES; c++)
                put(y + r * y_stride + c * LANES, get(y + r * y_stride + c * LANES) + sums[r][c]);
        else
            for (int64_t c = 0; c < columns; c++) y[r * y_stride + c] += sums[r][c / LANES][c % LANES];
    }
}

/* y += x * weights, with x [rows][depth] and y [rows][columns], a stride apart. The weights are in panels of COLUMNS
   columns, [panels][depth][COLUMNS], the last one filled up with zeros. Each sum runs in the order of `depth`, however
   many rows there are: an episode's numbers do not depend on the others in its block. */
static void product(int64_t rows, int64_t depth, int64_t columns, const REAL *x, int64_t x_stride, const REAL *panels,
                    REAL *y, int64_t y_stride) {
    for (int64_t first = 0; first < columns; first += COLUMNS, panels += depth * COLUMNS) {
        const int64_t some = columns - first < COLUMNS ? columns - first : COLUMNS;
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS)
            multiply(ROWS, depth, some, x + r * x_stride, x_stride, panels, y + r * y_stride + first, y_stride);
        for (; r < rows; r++)
            multiply(1, depth, some, x + r * x_stride, x_stride, panels, y + r * y_stride + first, y_stride);
    }
}

INLINE REAL sigmoid(REAL x) { /* never divides by more than 2: -ffast-math's division knows no infinity */
    const REAL e = exponential(-(REAL)fabs(x));
    return (x < 0 ? e : 1) / (1 + e);
}

INLINE REAL hyperbolic_tangent(REAL x) {
    const REAL e = exponential(-2 * (REAL)fabs(x)), size = (1 - e) / (1 + e);
    return x < 0 ? -size : size;
}

/* Santoro et al., equations 10 to 15. `gates` are forget, write and output gate and update. */
INLINE void lstm_forward(int64_t units, REAL *restrict gates, const REAL *restrict last_cell, REAL *restrict cell,
                         REAL *restrict squashed, REAL *restrict hidden) {
    for (int64_t i = 0; i < 3 * units; i++) gates[i] = sigmoid(gates[i]);
    for (int64_t i = 3 * units; i < 4 * units; i++) gates[i] = hyperbolic_tangent(gates[i]);
    for (int64_t i = 0; i < units; i++) {
        cell[i] = gates[i] * last_cell[i] + gates[units + i] * gates[3 * units + i];
        squashed[i] = hyperbolic_tangent(cell[i]);
        hidden[i] = gates[2 * units + i] * squashed[i];
    }
}

/* d_cell comes in as by all that used the cell later, and leaves as the last step's. */
INLINE void lstm_backward(int64_t units, const REAL *restrict gates, const REAL *restrict last_cell,
                          const REAL *restrict squashed, const REAL *restrict d_hidden, REAL *restrict d_cell,
                          REAL *restrict d_gates) {
    for (int64_t i = 0; i < units; i++) {
        const REAL forget = gates[i], write = gates[units + i], output = gates[2 * units + i];
        const REAL update = gates[3 * units + i];
        const REAL d = d_cell[i] + d_hidden[i] * output * (1 - squashed[i] * squashed[i]);
        d_gates[i] = d * last_cell[i] * forget * (1 - forget);
        d_gates[units + i] = d * update * write * (1 - write);
        d_gates[2 * units + i] = d_hidden[i] * squashed[i] * output * (1 - output);
        d_gates[3 * units + i] = d * write * (1 - update * update);
        d_cell[i] = d * forget;
    }
}

/* Where an episode's entry of a step begins, in an array of `u`, the kernel's arguments. */
#define ENTRY(array, b, t, entries, size) (u->array + ((b) * (entries) + (t)) * (size))

/* `part` over all blocks of the batch, with the papers' numbers of heads as constants. */
#define OVER_BLOCKS(part)                                                                                  \
    do {                                                                                                   \
        const int64_t each = (u->batch + u->threads - 1) / u->threads, deep = (each + BLOCK - 1) / BLOCK;  \
        const int64_t block = (each + deep - 1) / deep;                                                    \
        _Pragma("omp parallel for num_threads(u->threads) schedule(static)")                               \
        for (int64_t first = 0; first < u->batch; first += block) {                                        \
            const int64_t rows = u->batch - first < block ? u->batch - first : block;                      \
            if (u->heads == 4)                                                                             \
                part(u, 4, first, rows);                                                                   \
            else if (u->heads == 1)                                                                        \
                part(u, 1, first, rows);                                                                   \
            else                                                                                           \
                part(u, u->heads, first, rows);                                                            \
        }                                                                                                  \
    } while (0)
