/* All steps of FLMN over a batch of episodes, and their derivative, for the CPU. lib/methods/flmn_fast.py calls it.

   Built as mann.c is; the equations are those of Mureja et al. 2017. One head. */

#include "controller.h"
#include "lrua.h"

typedef struct {
    int64_t threads, batch, steps, units, heads, slots, padded, width, dynamic, same_step; /* `heads` is 1 */
    double decay;
    const REAL *from_state, *to_vectors, *to_gate; /* weights in panels, see `product`; for the derivative, transposed */
    const REAL *vectors_bias, *gate_bias;
    /* Of each episode and step. What is there before the first step too has an entry more: entry t + 1 is step t's. */
    REAL *outputs;        /* [batch][steps + 1][units + width], hidden and read: also what the next step is fed */
    REAL *gates;          /* [batch][steps][4 * units], as in mann.c */
    REAL *cell;           /* [batch][steps + 1][units] */
    REAL *squashed;       /* [batch][steps][units]: tanh of the cell */
    REAL *vectors;        /* [batch][steps][3 * width]: key, feature, label */
    REAL *gate;           /* [batch][steps][1] */
    REAL *read_weights;   /* [batch][steps + 1][padded] */
    REAL *write_weights;  /* [batch][steps + 1][padded]: where step t's label goes, too: entry t, or t + 1 if same_step */
    REAL *cosine, *scale; /* [batch][steps][padded] */
    REAL *erased;         /* [batch][steps][width] */
    int64_t *least_used;  /* [batch][steps + 1][1] */
    /* Of each episode, changed by each step. */
    REAL *features, *labels, *usage; /* [batch][width][padded], twice, and [batch][padded] */
    REAL *scratch;                   /* [batch][2][padded] */
    /* The derivatives; d_outputs comes in as the loss's own, and earlier steps get from later ones what they fed. */
    REAL *d_outputs, *d_gates, *d_vectors, *d_alpha;                    /* [batch][steps][...] */
    REAL *d_cell, *d_features, *d_labels, *d_read_weights, *d_write_weights; /* [batch][...] */
} Unroll;

INLINE void forward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, N = u->slots, P = u->padded, M = u->width, O = U + M, G = 4 * U;
    const int64_t last = first + rows;
    for (int64_t t = 0; t < T; t++) {
        product(rows, O, G, ENTRY(outputs, first, t, T + 1, O), (T + 1) * O, u->from_state,
                ENTRY(gates, first, t, T, G), T * G);
        for (int64_t b = first; b < last; b++) {
            REAL *cell = ENTRY(cell, b, t + 1, T + 1, U);
            lstm_forward(U, ENTRY(gates, b, t, T, G), cell - U, cell, ENTRY(squashed, b, t, T, U),
                         ENTRY(outputs, b, t + 1, T + 1, O));
            for (int64_t i = 0; i < 3 * M; i++) ENTRY(vectors, b, t, T, 3 * M)[i] = u->vectors_bias[i];
            *ENTRY(gate, b, t, T, 1) = *u->gate_bias;
        }
        product(rows, U, 3 * M, ENTRY(cell, first, t + 1, T + 1, U), (T + 1) * U, u->to_vectors,
                ENTRY(vectors, first, t, T, 3 * M), T * 3 * M);
        if (u->dynamic)
            product(rows, U, 1, ENTRY(outputs, first, t + 1, T + 1, O), (T + 1) * O, u->to_gate,
                    ENTRY(gate, first, t, T, 1), T);
        for (int64_t b = first; b < last; b++) {
            const REAL *key = ENTRY(vectors, b, t, T, 3 * M), *feature = key + M, *label = feature + M;
            REAL *gate = ENTRY(gate, b, t, T, 1), *features = ENTRY(features, b, 0, 1, M * P);
            REAL *labels = ENTRY(labels, b, 0, 1, M * P), *read_weights = ENTRY(read_weights, b, t + 1, T + 1, P);
            REAL *write_weights = ENTRY(write_weights, b, t + 1, T + 1, P);
            int64_t *least_used = ENTRY(least_used, b, t + 1, T + 1, 1);
            *gate = sigmoid(*gate);
            write_forward(H, P, M, 1, feature, gate, read_weights - P, least_used - 1, features, /* equations 6 to 8 */
                          ENTRY(erased, b, t, T, M), write_weights);
            store(H, P, M, 1, label, u->same_step ? write_weights : write_weights - P, labels); /* equations 9 and 10 */
            address_forward(H, N, P, M, key, features, read_weights, ENTRY(cosine, b, t, T, P), /* equations 1 and 2 */
                            ENTRY(scale, b, t, T, P));
            recall(H, P, M, read_weights, labels, ENTRY(outputs, b, t + 1, T + 1, O) + U); /* equation 3 */
            usage_forward(H, N, P, (REAL)u->decay, read_weights, write_weights, /* equations 4 and 5 */
                          ENTRY(usage, b, 0, 1, P), least_used, ENTRY(scratch, b, 0, 1, 2 * P));
        }
    }
}

/* The derivative of a label's write; the label memory goes back to what it was before. */
INLINE void unwrite_label(int64_t H, int64_t P, int64_t M, const REAL *label, const REAL *weights, REAL *labels,
                          const REAL *d_labels, REAL *d_label, REAL *d_weights) {
    recall(H, P, M, weights, d_labels, d_label);
    match(H, P, M, label, d_labels, d_weights);
    store(H, P, M, -1, label, weights, labels);
}

INLINE void backward(const Unroll *u, int64_t H, int64_t first, int64_t rows) {
    const int64_t T = u->steps, U = u->units, P = u->padded, M = u->width, O = U + M, G = 4 * U, last = first + rows;
    for (int64_t t = T - 1; t >= 0; t--) {
        for (int64_t b = first; b < last; b++) {
            const REAL *key = ENTRY(vectors, b, t, T, 3 * M), *feature = key + M, *label = feature + M;
            const REAL *gate = ENTRY(gate, b, t, T, 1), *read_weights = ENTRY(read_weights, b, t + 1, T + 1, P);
            const REAL *write_weights = ENTRY(write_weights, b, t + 1, T + 1, P);
            REAL *features = ENTRY(features, b, 0, 1, M * P), *d_features = ENTRY(d_features, b, 0, 1, M * P);
            REAL *labels = ENTRY(labels, b, 0, 1, M * P), *d_labels = ENTRY(d_labels, b, 0, 1, M * P);
            REAL *d_read_weights = ENTRY(d_read_weights, b, 0, 1, P), *d_read = ENTRY(d_outputs, b, t, T, O) + U;
            REAL *d_write_weights = ENTRY(d_write_weights, b, 0, 1, P), *d_alpha = ENTRY(d_alpha, b, t, T, 1);
            REAL *d_key = ENTRY(d_vectors, b, t, T, 3 * M), *d_feature = d_key + M, *d_label = d_feature + M;

            match(H, P, M, d_read, labels, d_read_weights); /* equation 3 */
            store(H, P, M, 1, d_read, read_weights, d_labels);
            if (u->same_step) unwrite_label(H, P, M, label, write_weights, labels, d_labels, d_label, d_write_weights);
            address_backward(H, P, M, key, features, read_weights, ENTRY(cosine, b, t, T, P), /* equations 1 and 2 */
                             ENTRY(scale, b, t, T, P), d_read_weights, d_features, d_key,
                             ENTRY(scratch, b, 0, 1, 2 * P));
            write_backward(H, P, M, 1, feature, gate, read_weights - P, /* equations 6 to 8 */
                           ENTRY(least_used, b, t, T + 1, 1), ENTRY(erased, b, t, T, M), write_weights, features,
                           d_features, d_write_weights, d_feature, d_alpha);
            *d_alpha *= *gate * (1 - *gate);

            /* What came out as by the last read weights is so; the last write weights have this step's label alone. */
            for (int64_t i = 0; i < P; i++) d_read_weights[i] = d_write_weights[i], d_write_weights[i] = 0;
            if (!u->same_step) /* equations 9 and 10 */
                unwrite_label(H, P, M, label, write_weights - P, labels, d_labels, d_label, d_write_weights);
        }
        REAL *d_outputs = ENTRY(d_outputs, first, t, T, O), *d_gates = ENTRY(d_gates, first, t, T, G);
        if (u->dynamic) product(rows, 1, U, ENTRY(d_alpha, first, t, T, 1), T, u->to_gate, d_outputs, T * O);
        product(rows, 3 * M, U, ENTRY(d_vectors, first, t, T, 3 * M), T * 3 * M, u->to_vectors,
                ENTRY(d_cell, first, 0, 1, U), U);
        for (int64_t b = first; b < last; b++)
            lstm_backward(U, ENTRY(gates, b, t, T, G), ENTRY(cell, b, t, T + 1, U), ENTRY(squashed, b, t, T, U),
                          ENTRY(d_outputs, b, t, T, O), ENTRY(d_cell, b, 0, 1, U), ENTRY(d_gates, b, t, T, G));
        if (t) product(rows, G, O, d_gates, T * G, u->from_state, d_outputs - O, T * O);
    }
}

void unroll_forward(const Unroll *u) { OVER_BLOCKS(forward); }

void unroll_backward(const Unroll *u) { OVER_BLOCKS(backward); }
