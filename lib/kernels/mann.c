/* All steps of MANN over a batch of episodes, and their derivative, for the CPU. lib/methods/mann_fast.py calls it.

   Episodes are independent: a thread takes a block of them through all steps, and waits for no other. Within a block a
   step is a few products of matrices, whose rows are the episodes, and then each episode's own part. */

#include "controller.h"
#include "lrua.h"

typedef struct {
    /* `padded`: slots, rounded up to whole vectors. `together`: every head writes to all least used slots; else head j
       to the j-th. The other flags: an LSTM or one tanh layer, separate keys or shared ones, a dynamic gate. */
    int64_t threads, batch, steps, units, heads, slots, padded, width, lstm, separate, dynamic, together;
    double decay;
    const REAL *from_state, *to_keys, *to_gate; /* weights in panels, see `product`; for the derivative, transposed */
    const REAL *keys_bias, *gate_bias;
    /* Of each episode and step. Arrays with [steps + 1] begin with what was before the first step. */
    REAL *outputs;        /* [batch][steps + 1][units + heads * width], hidden and read: also what the next step is fed */
    REAL *gates;          /* [batch][steps][4 * units], in: the input's part; out: what the squashing functions give */
    REAL *cell;           /* [batch][steps + 1][units] */
    REAL *squashed;       /* [batch][steps][units]: tanh of the cell */
    REAL *keys;           /* [batch][steps][(separate ? 2 : 1) * heads * width] */
    REAL *gate;           /* [batch][steps][heads] */
    REAL *read_weights;   /* [batch][steps + 1][heads][padded] */
    REAL *write_weights;  /* [batch][steps][heads][padded] */
    REAL *cosine, *scale; /* [batch][steps][heads][padded], [batch][steps][padded] */
    REAL *erased;         /* [batch][steps][heads][width] */
    int64_t *least_used;  /* [batch][steps + 1][heads] */
    /* Of each episode, changed by each step. */
    REAL *memory, *usage; /* [batch][width][padded], [batch][padded] */
    REAL *scratch;        /* [batch][heads + 1][padded] */
    /* The derivatives; d_outputs comes in as the loss's own, and earlier steps get from later ones what they fed. */
    REAL *d_outputs, *d_gates, *d_keys, *d_alpha;  /* [batch][steps][...] */
    REAL *d_cell, *d_memory, *d_read_weights, *d_both; /* [batch][...]; d_both: of shared keys, as read and as written */
} Unroll;

INLINE void forward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, N = u->slots, P = u->padded, M = u->width, S = H * M, O = U + S;
    const int64_t G = u->lstm ? 4 * U : U, K = u->separate ? 2 * S : S, last = first + rows;
    const int64_t fed = u->lstm ? 0 : U; /* the feed-forward controller is fed what was read, not what was hidden */
    for (int64_t t = 0; t < T; t++) {
        product(rows, O - fed, G, ENTRY(outputs, first, t, T + 1, O) + fed, (T + 1) * O, u->from_state,
                ENTRY(gates, first, t, T, G), T * G);
        for (int64_t b = first; b < last; b++) {
            REAL *gates = ENTRY(gates, b, t, T, G), *cell = ENTRY(cell, b, t + 1, T + 1, U);
            REAL *hidden = ENTRY(outputs, b, t + 1, T + 1, O);
            if (u->lstm)
                lstm_forward(U, gates, cell - U, cell, ENTRY(squashed, b, t, T, U), hidden);
            else
                for (int64_t i = 0; i < U; i++) hidden[i] = cell[i] = gates[i] = hyperbolic_tangent(gates[i]);
            for (int64_t i = 0; i < K; i++) ENTRY(keys, b, t, T, K)[i] = u->keys_bias[i];
            for (int64_t h = 0; h < H; h++) ENTRY(gate, b, t, T, H)[h] = u->gate_bias[h];
        }
        product(rows, U, K, ENTRY(cell, first, t + 1, T + 1, U), (T + 1) * U, u->to_keys, ENTRY(keys, first, t, T, K),
                T * K);
        if (u->dynamic)
            product(rows, U, H, ENTRY(outputs, first, t + 1, T + 1, O), (T + 1) * O, u->to_gate,
                    ENTRY(gate, first, t, T, H), T * H);
        for (int64_t b = first; b < last; b++) {
            REAL *gate = ENTRY(gate, b, t, T, H), *keys = ENTRY(keys, b, t, T, K);
            REAL *read_weights = ENTRY(read_weights, b, t + 1, T + 1, H * P);
            int64_t *least_used = ENTRY(least_used, b, t + 1, T + 1, H);
            for (int64_t h = 0; h < H; h++) gate[h] = sigmoid(gate[h]);
            REAL *memory = ENTRY(memory, b, 0, 1, M * P), *write_weights = ENTRY(write_weights, b, t, T, H * P);
            write_forward(H, P, M, u->together, keys + K - S, gate, read_weights - H * P, least_used - H, memory,
                          ENTRY(erased, b, t, T, S), write_weights);
            address_forward(H, N, P, M, keys, memory, read_weights, ENTRY(cosine, b, t, T, H * P),
                            ENTRY(scale, b, t, T, P));
            recall(H, P, M, read_weights, memory, ENTRY(outputs, b, t + 1, T + 1, O) + U); /* equation 4 */
            usage_forward(H, N, P, (REAL)u->decay, read_weights, write_weights, ENTRY(usage, b, 0, 1, P), least_used,
                          ENTRY(scratch, b, 0, 1, (H + 1) * P));
        }
    }
}

INLINE void backward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, P = u->padded, M = u->width, S = H * M, O = U + S;
    const int64_t G = u->lstm ? 4 * U : U, K = u->separate ? 2 * S : S, last = first + rows;
    const int64_t fed = u->lstm ? 0 : U;
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t b = first; b < last; b++) {
            REAL *keys = ENTRY(keys, b, t, T, K), *d_keys = ENTRY(d_keys, b, t, T, K);
            REAL *gate = ENTRY(gate, b, t, T, H), *d_alpha = ENTRY(d_alpha, b, t, T, H);
            REAL *read_weights = ENTRY(read_weights, b, t + 1, T + 1, H * P);
            REAL *d_both = u->separate ? d_keys : ENTRY(d_both, b, 0, 1, 2 * S);
            REAL *memory = ENTRY(memory, b, 0, 1, M * P), *d_memory = ENTRY(d_memory, b, 0, 1, M * P);
            REAL *d_weights = ENTRY(d_read_weights, b, 0, 1, H * P), *d_read = ENTRY(d_outputs, b, t, T, O) + U;
            match(H, P, M, d_read, memory, d_weights); /* equation 4 */
            store(H, P, M, 1, d_read, read_weights, d_memory);
            address_backward(H, P, M, keys, memory, read_weights, ENTRY(cosine, b, t, T, H * P),
                             ENTRY(scale, b, t, T, P), d_weights, d_memory, d_both,
                             ENTRY(scratch, b, 0, 1, (H + 1) * P));
            for (int64_t i = 0; i < H * P; i++) d_weights[i] = 0; /* spent: from here on it is by the write weights */
            write_backward(H, P, M, u->together, keys + K - S, gate, read_weights - H * P,
                           ENTRY(least_used, b, t, T + 1, H), ENTRY(erased, b, t, T, S),
                           ENTRY(write_weights, b, t, T, H * P), memory, d_memory, d_weights, d_both + S, d_alpha);
            for (int64_t h = 0; h < H; h++) d_alpha[h] *= gate[h] * (1 - gate[h]);
            if (!u->separate)
                for (int64_t i = 0; i < S; i++) d_keys[i] = d_both[i] + d_both[S + i];
        }
        REAL *d_outputs = ENTRY(d_outputs, first, t, T, O), *d_gates = ENTRY(d_gates, first, t, T, G);
        if (u->dynamic) product(rows, H, U, ENTRY(d_alpha, first, t, T, H), T * H, u->to_gate, d_outputs, T * O);
        product(rows, K, U, ENTRY(d_keys, first, t, T, K), T * K, u->to_keys,
                u->lstm ? ENTRY(d_cell, first, 0, 1, U) : d_outputs, u->lstm ? U : T * O);
        for (int64_t b = first; b < last; b++) {
            const REAL *gates = ENTRY(gates, b, t, T, G), *d_hidden = ENTRY(d_outputs, b, t, T, O);
            if (u->lstm)
                lstm_backward(U, gates, ENTRY(cell, b, t, T + 1, U), ENTRY(squashed, b, t, T, U), d_hidden,
                              ENTRY(d_cell, b, 0, 1, U), ENTRY(d_gates, b, t, T, G));
            else
                for (int64_t i = 0; i < U; i++)
                    ENTRY(d_gates, b, t, T, G)[i] = d_hidden[i] * (1 - gates[i] * gates[i]);
        }
        if (t) product(rows, G, O - fed, d_gates, T * G, u->from_state, d_outputs - O + fed, T * O);
    }
}

void unroll_forward(const Unroll *u) { OVER_BLOCKS(forward); }

void unroll_backward(const Unroll *u) { OVER_BLOCKS(backward); }
