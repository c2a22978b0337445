/* All steps of an NTM over a batch of episodes, and their derivative, for the CPU. lib/baselines/ntm_fast.py calls it.

   The same arithmetic as lib/baselines/ntm.py and lib/memory/ntm.py, with one write head; the equations are those of
   Graves et al. 2014. Arrays are as in addressing.h; the write head's come before the read heads'. */

#include "controller.h"

#define WEIGHT_EPSILON ((REAL)1e-6) /* as in lib/memory/ntm.py */
#define FOCUS 6                     /* numbers of a head besides its key: strength, gate, three shifts, power */

typedef struct {
    int64_t threads, batch, steps, units, heads, slots, padded, width; /* `heads`: those that read */
    const REAL *from_state, *to_controls; /* weights in panels, see `product`; for the derivative, transposed */
    const REAL *controls_bias;
    /* Of each episode and step. Arrays with [steps + 1] begin with what was before the first step. */
    REAL *outputs;                    /* [batch][steps + 1][units + heads * width], hidden and read */
    REAL *gates;                      /* [batch][steps][4 * units], as in mann.c */
    REAL *cell;                       /* [batch][steps + 1][units] */
    REAL *squashed;                   /* [batch][steps][units]: tanh of the cell */
    REAL *controls;                   /* [batch][steps][3 * width + FOCUS + heads * (width + FOCUS)], see `focus_forward`;
                                         the write head's are followed by what to erase, not yet squashed, and to add */
    REAL *memory, *scale;             /* [batch][steps + 1][width][padded], [batch][steps + 1][padded] */
    REAL *weights;                    /* [batch][steps + 1][1 + heads][padded] */
    REAL *cosine, *content, *shifted; /* [batch][steps][1 + heads][padded] */
    REAL *scratch;                    /* [batch][1 + heads][padded] */
    /* The derivatives; d_outputs comes in as the loss's own, and earlier steps get from later ones what they fed. */
    REAL *d_outputs, *d_gates, *d_controls; /* [batch][steps][...] */
    REAL *d_cell, *d_memory, *d_weights;    /* [batch][...] */
} Unroll;

typedef struct {
    REAL strength, gate, shares[3], power;
} Focus;

INLINE REAL softplus(REAL x) { return x > 20 ? x : (REAL)log1p(exp(x)); }
INLINE REAL logarithm(REAL x) { return sizeof(REAL) == 4 ? (REAL)logf((float)x) : (REAL)log(x); }

INLINE Focus focus(const REAL *raw) {
    Focus f = {softplus(raw[0]), sigmoid(raw[1]), {0}, 1 + softplus(raw[5])};
    const REAL *s = raw + 2, most = s[0] > s[1] ? (s[0] > s[2] ? s[0] : s[2]) : (s[1] > s[2] ? s[1] : s[2]);
    REAL total = 0;
    for (int64_t k = 0; k < 3; k++) total += f.shares[k] = exponential(s[k] - most);
    for (int64_t k = 0; k < 3; k++) f.shares[k] /= total;
    return f;
}

/* out[i] = back * in[i + 1] + stay * in[i] + on * in[i - 1], around the N slots; 0 beyond them */
INLINE void turn(int64_t N, int64_t P, REAL back, REAL stay, REAL on, const REAL *restrict in, REAL *restrict out) {
    for (int64_t i = 1; i < N - 1; i++) out[i] = back * in[i + 1] + stay * in[i] + on * in[i - 1];
    out[0] = back * in[N > 1] + stay * in[0] + on * in[N - 1];
    if (N > 1) out[N - 1] = back * in[0] + stay * in[N - 1] + on * in[N - 2];
    for (int64_t i = N; i < P; i++) out[i] = 0;
}

/* Equations 5 to 9 for H heads that look at one memory. A head's controls are its key and FOCUS numbers before they are
   squashed, `stride` from the next head's. */
INLINE void focus_forward(int64_t H, int64_t N, int64_t P, int64_t M, const REAL *controls, int64_t stride,
                          const REAL *memory, const REAL *scale, const REAL *restrict last, REAL *restrict cosine,
                          REAL *restrict content, REAL *restrict shifted, REAL *restrict weights) {
    REAL keys[H * M];
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < M; w++) keys[h * M + w] = controls[h * stride + w];
    cosine_forward(H, P, M, keys, memory, scale, cosine);
    for (int64_t h = 0; h < H; h++, last += P, cosine += P, content += P, shifted += P, weights += P) {
        const Focus f = focus(controls + h * stride + M);

        REAL most = cosine[0], total = 0; /* equation 5 */
        for (int64_t i = 0; i < N; i++) most = cosine[i] > most ? cosine[i] : most;
        for (int64_t i = 0; i < N; i++) content[i] = exponential(f.strength * (cosine[i] - most));
        for (int64_t i = N; i < P; i++) content[i] = 0;
        for (int64_t i = 0; i < P; i++) total += content[i];
        for (int64_t i = 0; i < P; i++) content[i] *= 1 / total;

        for (int64_t i = 0; i < P; i++) weights[i] = f.gate * content[i] + (1 - f.gate) * last[i]; /* equation 7 */
        turn(N, P, f.shares[0], f.shares[1], f.shares[2], weights, shifted);                       /* equation 8 */

        for (int64_t i = 0; i < N; i++) weights[i] = logarithm(shifted[i] + WEIGHT_EPSILON); /* equation 9 */
        most = weights[0], total = 0;
        for (int64_t i = 0; i < N; i++) most = weights[i] > most ? weights[i] : most;
        for (int64_t i = 0; i < N; i++) weights[i] = exponential(f.power * (weights[i] - most));
        for (int64_t i = N; i < P; i++) weights[i] = 0;
        for (int64_t i = 0; i < P; i++) total += weights[i];
        for (int64_t i = 0; i < P; i++) weights[i] *= 1 / total;
    }
}

/* The derivative. d_weights comes in as the loss's derivative by the weights and leaves as that by the last step's weights;
   d_memory gets this part added; d_controls goes out. `scratch` has room for (H + 1) * slots. */
INLINE void focus_backward(int64_t H, int64_t N, int64_t P, int64_t M, const REAL *controls, int64_t stride,
                           const REAL *memory, const REAL *scale, const REAL *restrict last, const REAL *cosine,
                           const REAL *content, const REAL *shifted, const REAL *weights, REAL *d_memory,
                           REAL *restrict d_weights, REAL *restrict d_controls, REAL *restrict scratch) {
    REAL keys[H * M], d_keys[H * M], *gated = scratch + H * P;
    for (int64_t h = 0; h < H; h++) {
        const Focus f = focus(controls + h * stride + M);
        const REAL *c = content + h * P, *l = last + h * P, *s = shifted + h * P, *w = weights + h * P;
        REAL *restrict d = d_weights + h * P, *d_cosine = scratch + h * P, *d_gated = d_cosine; /* one after the other */
        REAL *d_raw = d_controls + h * stride + M;

        REAL mean = 0, d_power = 0; /* equation 9 */
        for (int64_t i = 0; i < P; i++) mean += w[i] * d[i];
        for (int64_t i = 0; i < P; i++) {
            const REAL base = s[i] + WEIGHT_EPSILON, d_log = w[i] * (d[i] - mean);
            d_power += d_log * logarithm(base);
            d[i] = d_log * f.power / base; /* by `shifted` */
        }
        d_raw[5] = d_power * sigmoid(controls[h * stride + M + 5]);

        REAL d_shares[3] = {0}, along = 0; /* equation 8 */
        for (int64_t i = 0; i < P; i++) gated[i] = f.gate * c[i] + (1 - f.gate) * l[i];
        for (int64_t i = 0; i < N; i++) d_shares[1] += d[i] * gated[i];
        for (int64_t i = 0; i < N - 1; i++) d_shares[0] += d[i] * gated[i + 1], d_shares[2] += d[i + 1] * gated[i];
        d_shares[0] += d[N - 1] * gated[0], d_shares[2] += d[0] * gated[N - 1];
        for (int64_t k = 0; k < 3; k++) along += f.shares[k] * d_shares[k];
        for (int64_t k = 0; k < 3; k++) d_raw[2 + k] = f.shares[k] * (d_shares[k] - along);
        turn(N, P, f.shares[2], f.shares[1], f.shares[0], d, d_gated);

        REAL d_gate = 0; /* equation 7 */
        for (int64_t i = 0; i < P; i++) {
            d_gate += d_gated[i] * (c[i] - l[i]);
            d[i] = (1 - f.gate) * d_gated[i];
        }
        d_raw[1] = d_gate * f.gate * (1 - f.gate);

        REAL d_strength = 0; /* equation 5 */
        mean = 0;
        for (int64_t i = 0; i < P; i++) mean += c[i] * d_gated[i];
        for (int64_t i = 0; i < P; i++) {
            const REAL d_exponent = f.gate * c[i] * (d_gated[i] - mean);
            d_strength += d_exponent * cosine[h * P + i];
            d_cosine[i] = f.strength * d_exponent;
        }
        d_raw[0] = d_strength * sigmoid(controls[h * stride + M]);
        for (int64_t m = 0; m < M; m++) keys[h * M + m] = controls[h * stride + m];
    }
    cosine_backward(H, P, M, keys, memory, scale, cosine, scratch, d_memory, d_keys, gated);
    for (int64_t h = 0; h < H; h++)
        for (int64_t m = 0; m < M; m++) d_controls[h * stride + m] = d_keys[h * M + m];
}

INLINE void forward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, N = u->slots, P = u->padded, M = u->width, O = U + H * M;
    const int64_t G = 4 * U, W = 3 * M + FOCUS, K = W + H * (M + FOCUS), A = (1 + H) * P, last = first + rows;
    for (int64_t b = first; b < last; b++)
        slot_scales(P, M, ENTRY(memory, b, 0, T + 1, M * P), ENTRY(scale, b, 0, T + 1, P));
    for (int64_t t = 0; t < T; t++) {
        product(rows, O, G, ENTRY(outputs, first, t, T + 1, O), (T + 1) * O, u->from_state,
                ENTRY(gates, first, t, T, G), T * G);
        for (int64_t b = first; b < last; b++) {
            REAL *cell = ENTRY(cell, b, t + 1, T + 1, U), *controls = ENTRY(controls, b, t, T, K);
            lstm_forward(U, ENTRY(gates, b, t, T, G), cell - U, cell, ENTRY(squashed, b, t, T, U),
                         ENTRY(outputs, b, t + 1, T + 1, O));
            for (int64_t i = 0; i < K; i++) controls[i] = u->controls_bias[i];
        }
        product(rows, U, K, ENTRY(outputs, first, t + 1, T + 1, O), (T + 1) * O, u->to_controls,
                ENTRY(controls, first, t, T, K), T * K);
        for (int64_t b = first; b < last; b++) {
            const REAL *controls = ENTRY(controls, b, t, T, K), *erase = controls + M + FOCUS, *add = erase + M;
            REAL *memory = ENTRY(memory, b, t, T + 1, M * P), *scale = ENTRY(scale, b, t, T + 1, P);
            REAL *weights = ENTRY(weights, b, t + 1, T + 1, A), *last_weights = weights - A;
            REAL *cosine = ENTRY(cosine, b, t, T, A), *content = ENTRY(content, b, t, T, A);
            REAL *shifted = ENTRY(shifted, b, t, T, A);

            focus_forward(1, N, P, M, controls, W, memory, scale, last_weights, cosine, content, shifted, weights);
            for (int64_t w = 0; w < M; w++) { /* equations 3 and 4 */
                const REAL e = sigmoid(erase[w]), a = add[w];
                for (int64_t i = 0; i < P; i++)
                    memory[(M + w) * P + i] = memory[w * P + i] * (1 - e * weights[i]) + a * weights[i];
            }
            memory += M * P, scale += P;
            slot_scales(P, M, memory, scale);
            focus_forward(H, N, P, M, controls + W, M + FOCUS, memory, scale, last_weights + P, cosine + P, content + P,
                          shifted + P, weights + P);
            recall(H, P, M, weights + P, memory, ENTRY(outputs, b, t + 1, T + 1, O) + U); /* equation 2 */
        }
    }
}

INLINE void backward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, N = u->slots, P = u->padded, M = u->width, O = U + H * M;
    const int64_t G = 4 * U, W = 3 * M + FOCUS, K = W + H * (M + FOCUS), A = (1 + H) * P, last = first + rows;
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t b = first; b < last; b++) {
            const REAL *controls = ENTRY(controls, b, t, T, K), *erase = controls + M + FOCUS, *add = erase + M;
            const REAL *memory = ENTRY(memory, b, t + 1, T + 1, M * P), *scale = ENTRY(scale, b, t + 1, T + 1, P);
            const REAL *weights = ENTRY(weights, b, t + 1, T + 1, A), *last_weights = weights - A;
            const REAL *cosine = ENTRY(cosine, b, t, T, A), *content = ENTRY(content, b, t, T, A);
            const REAL *shifted = ENTRY(shifted, b, t, T, A), *d_read = ENTRY(d_outputs, b, t, T, O) + U;
            REAL *d_controls = ENTRY(d_controls, b, t, T, K), *scratch = ENTRY(scratch, b, 0, 1, A);
            REAL *restrict d_memory = ENTRY(d_memory, b, 0, 1, M * P), *restrict d_weights = ENTRY(d_weights, b, 0, 1, A);

            match(H, P, M, d_read, memory, d_weights + P); /* equation 2 */
            store(H, P, M, 1, d_read, weights + P, d_memory);
            focus_backward(H, N, P, M, controls + W, M + FOCUS, memory, scale, last_weights + P, cosine + P, content + P,
                           shifted + P, weights + P, d_memory, d_weights + P, d_controls + W, scratch);
            memory -= M * P, scale -= P;
            for (int64_t w = 0; w < M; w++) { /* equations 3 and 4 */
                const REAL e = sigmoid(erase[w]), a = add[w];
                REAL d_erase = 0, d_add = 0;
                for (int64_t i = 0; i < P; i++) {
                    const REAL d = d_memory[w * P + i], lost = d * memory[w * P + i];
                    d_add += d * weights[i];
                    d_erase -= lost * weights[i];
                    d_weights[i] += d * a - lost * e;
                    d_memory[w * P + i] = d * (1 - e * weights[i]);
                }
                d_controls[M + FOCUS + w] = d_erase * e * (1 - e);
                d_controls[2 * M + FOCUS + w] = d_add;
            }
            focus_backward(1, N, P, M, controls, W, memory, scale, last_weights, cosine, content, shifted, weights,
                           d_memory, d_weights, d_controls, scratch);
        }
        REAL *d_outputs = ENTRY(d_outputs, first, t, T, O), *d_gates = ENTRY(d_gates, first, t, T, G);
        product(rows, K, U, ENTRY(d_controls, first, t, T, K), T * K, u->to_controls, d_outputs, T * O);
        for (int64_t b = first; b < last; b++)
            lstm_backward(U, ENTRY(gates, b, t, T, G), ENTRY(cell, b, t, T + 1, U), ENTRY(squashed, b, t, T, U),
                          ENTRY(d_outputs, b, t, T, O), ENTRY(d_cell, b, 0, 1, U), ENTRY(d_gates, b, t, T, G));
        if (t) product(rows, G, O, d_gates, T * G, u->from_state, d_outputs - O, T * O);
    }
}

void unroll_forward(const Unroll *u) { OVER_BLOCKS(forward); }

void unroll_backward(const Unroll *u) { OVER_BLOCKS(backward); }
