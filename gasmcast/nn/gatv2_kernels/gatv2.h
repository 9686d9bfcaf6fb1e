/* What Python hands to the kernels; compiled.py has the same fields in the same order. */
#ifndef GASMCAST_GATV2_H
#define GASMCAST_GATV2_H

#include <stdint.h>

typedef struct {
    /* M sources, N targets, H heads, C channels a head, F edge features (0: none or projected) */
    int64_t num_sources, num_targets, heads, channels, features;
    int64_t num_chunks;          /* how many parts the nodes are cut into; the sums depend on it */
    int64_t num_threads;
    double negative_slope;
    /* the graph by targets; a null edge means that the caller's edges are in this order */
    const int64_t *ptr, *source, *edge;
    /* the graph by sources */
    const int64_t *transposed_ptr, *transposed_target, *transposed_edge;
    /* REAL, all of them contiguous */
    const void *x_l, *x_r;       /* [M, H, C], [N, H, C] */
    const void *att;             /* [H, C] */
    const void *edge_attr;       /* [E, F] */
    const void *edge_weight;     /* [F, H, C] */
    const void *edge_rows;       /* [E, H, C], projected edge features, or null */
    const void *keep;            /* [E, H] or null */
    const void *bias;            /* [H, C], what the messages are added to, or null */
    void *out;                   /* [N, H, C] */
    void *alpha;                 /* [E, H] */
    void *signs;                 /* gatv2_signs_bytes() for each edge and head, or null: not kept */
    /* gradients only */
    const void *grad_out;        /* [N, H, C] */
    const void *grad_alpha;      /* [E, H] or null */
    void *pairs;                 /* [E, H, 2], scratch: gradient of a score, alpha keep */
    void *grad_x_l, *grad_x_r;
    void *grad_att;              /* [chunks, H, C], zeros; the caller sums over chunks */
    void *grad_bias;             /* likewise, or null: not wanted */
    void *grad_edge_weight;      /* [chunks, F, H, C], zeros */
    void *grad_edge_attr;        /* [E, F], zeros, or null: not wanted */
    void *grad_edge_rows;        /* [E, H, C] */
} gatv2_problem;

#endif
