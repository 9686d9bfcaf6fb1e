/* The kernels for one type and one instruction set; included by gatv2.c, which defines DOUBLE and SET.

   Below, for one head: l is a source's row, r a target's, g the gradient of a target's message, a the
   attention vector, each [C]; z = l + r + W e, and the score s = a . LeakyReLU(z).

   A node's edges are walked with a block of channels in registers: what belongs to the node is loaded
   once, and what is summed over its edges is stored once.

   Of z, backward needs the signs only, one bit each, which forward keeps. With t = ds LeakyReLU'(z)
   for an edge, T its sum over the edges of a node, and ds summing to zero over those of a target:

       grad r = a T_i,   grad l = a T_j + sum of alpha keep g,   grad W = a sum of t e
       grad a = sum of t z = sum of r T_i + sum of l T_j + W . sum of t e                        */

#if DOUBLE
#define REAL double
#define INTEGER int64_t
#define TYPE f64
#define MASK __mmask8
#define MASKED(step, suffix) _mm512_##step##_pd##suffix
#define MOVEMASK _mm256_movemask_pd
#else
#define REAL float
#define INTEGER int32_t
#define TYPE f32
#define MASK __mmask16
#define MASKED(step, suffix) _mm512_##step##_ps##suffix
#define MOVEMASK _mm256_movemask_ps
#endif

/* Channels are a multiple of 64 bytes, so that any vector fits. MOST vectors fit the registers. */
#if defined(AVX512)
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define VECTOR_BYTES 64
#define MOST 6
#elif defined(AVX2)
#define TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#define MOST 4
#else
#define TARGET
#define VECTOR_BYTES 16
#define MOST 4
#endif

#define VECTOR NAME(vector)
#define INTEGERS NAME(integers)
#define EDGES NAME(edges)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define PADDED NAME(padded)
/* x in every lane; unlike 0 + x, x - 0 is x for all x, and costs nothing */
#define SPREAD(x) ((x) - (VECTOR){0})
#define LOAD(row, v) (*(const VECTOR *)((row) + (v) * LANES))
#define STORE(row, v) (*(VECTOR *)((row) + (v) * LANES))

typedef REAL VECTOR __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INTEGER INTEGERS __attribute__((vector_size(VECTOR_BYTES)));

/* The edges of one node, and what goes with each of them. The last edge is there up to three times
   more, for loops that take four at a time. */
typedef struct {
    int64_t degree;
    int64_t *row;  /* where the row of its far end begins */
    int64_t *edge; /* its row in tensors of edges */
    int64_t *kept; /* where the signs of its z begin */
    REAL *score;   /* the gradient of alpha, then of the score, [H, PADDED(degree)] */
    REAL *weight;  /* score, alpha, what its message is multiplied with, likewise */
    void *memory;
} EDGES;

/* Room for so many edges, in whole vectors and whole fours. */
INLINE int64_t PADDED(int64_t degree)
{
    const int64_t most = LANES > 4 ? LANES : 4;
    return (degree + most - 1) / most * most;
}

INLINE TARGET int NAME(allocate)(const gatv2_problem *p, const int64_t *ptr, int64_t begin, int64_t end,
                          EDGES *edges)
{
    int64_t most = 0;
    for (int64_t i = begin; i < end; i++)
        most = ptr[i + 1] - ptr[i] > most ? ptr[i + 1] - ptr[i] : most;
    most = PADDED(most);
    edges->memory = malloc((size_t)most * (3 * sizeof(int64_t) + 2 * p->heads * sizeof(REAL)) + 1);
    if (!edges->memory)
        return 1;
    edges->row = edges->memory;
    edges->edge = edges->row + most;
    edges->kept = edges->edge + most;
    edges->score = (REAL *)(edges->kept + most);
    edges->weight = edges->score + most * p->heads;
    return 0;
}

INLINE TARGET void NAME(find)(EDGES *edges, const int64_t *node, const int64_t *edge, int64_t first,
                              int64_t last, int64_t width)
{
    edges->degree = last - first;
    for (int64_t k = 0; k < last - first; k++) {
        edges->row[k] = node[first + k] * width;
        edges->edge[k] = edge ? edge[first + k] : first + k;
        edges->kept[k] = edges->edge[k] * (width / LANES);
    }
    for (int64_t k = last - first; k % 4; k++) {
        edges->row[k] = edges->row[k - 1];
        edges->edge[k] = edges->edge[k - 1];
        edges->kept[k] = edges->kept[k - 1];
    }
}

/* Signs: POSITIVE(z) of a vector, kept as one KEPT each. */
#ifdef AVX512
#define SIGNS NAME(signs)
#define KEPT NAME(signs)
typedef MASK SIGNS;
#define POSITIVE(z) MASKED(cmp, _mask)(z, MASKED(setzero, )(), _CMP_GT_OQ)
#define AS_SIGNS(kept) (kept)
#define AS_KEPT(signs) (signs)
/* sum + value, and sum + a z, where positive; one instruction each */
#define ADD_WHERE(signs, sum, value) MASKED(mask_add, )(sum, signs, sum, value)
#define FMA_WHERE(signs, sum, x, y) MASKED(mask3_fmadd, )(x, y, sum, signs)
#else
#define SIGNS INTEGERS
#define KEPT uint8_t
#define POSITIVE(z) ((z) > 0)
#define AS_SIGNS(kept) NAME(unpack)(kept)
#define AS_KEPT(signs) NAME(pack)(signs)
#define ADD_WHERE(signs, sum, value) ((sum) + (VECTOR)((signs) & (INTEGERS)(value)))
#define FMA_WHERE(signs, sum, x, y) ((sum) + (x) * (VECTOR)((signs) & (INTEGERS)(y)))

INLINE TARGET uint8_t NAME(pack)(INTEGERS signs)
{
#ifdef AVX2
    return (uint8_t)MOVEMASK((VECTOR)signs);
#else
    uint8_t kept = 0;
    for (int lane = 0; lane < LANES; lane++)
        kept |= (uint8_t)((signs[lane] & 1) << lane);
    return kept;
#endif
}

INLINE TARGET INTEGERS NAME(unpack)(uint8_t kept)
{
    INTEGERS bit, all = (INTEGERS){0} + kept;
    for (int lane = 0; lane < LANES; lane++)
        bit[lane] = (INTEGER)1 << lane;
    return (all & bit) != 0;
}
#endif

static int64_t NAME(signs_bytes)(int64_t channels)
{
    return channels / LANES * (int64_t)sizeof(KEPT);
}

/* A vector as pieces of 16 bytes: what folds it in half again and again, in any instruction set. */
typedef REAL NAME(piece) __attribute__((vector_size(16)));
typedef union {
    VECTOR vector;
    NAME(piece) piece[VECTOR_BYTES / 16];
} NAME(pieces);

INLINE TARGET REAL NAME(sum)(VECTOR x)
{
    NAME(pieces) all = {x};
    NAME(piece) sum = all.piece[0];
    UNROLLED for (int m = 1; m < VECTOR_BYTES / 16; m++) sum += all.piece[m];
    REAL total = sum[0] + sum[1];
    if (!DOUBLE)
        total += sum[16 / sizeof(REAL) - 2] + sum[16 / sizeof(REAL) - 1];
    return total;
}

INLINE TARGET VECTOR NAME(select)(INTEGERS where, VECTOR x, VECTOR y)
{
    return (VECTOR)((where & (INTEGERS)x) | (~where & (INTEGERS)y));
}

INLINE TARGET REAL NAME(highest)(VECTOR x)
{
#ifdef AVX512
    return MASKED(reduce_max, )(x);
#else
    REAL most = x[0];
    for (int lane = 1; lane < LANES; lane++)
        most = x[lane] > most ? x[lane] : most;
    return most;
#endif
}

/* Writes the sum of each of four vectors to total[0] to total[3], or adds it. */
INLINE TARGET void NAME(add_sums)(const VECTOR x[4], int first, REAL *total)
{
#if defined(AVX512) && !DOUBLE
    const VECTOR a = _mm512_unpacklo_ps(x[0], x[1]) + _mm512_unpackhi_ps(x[0], x[1]);
    const VECTOR b = _mm512_unpacklo_ps(x[2], x[3]) + _mm512_unpackhi_ps(x[2], x[3]);
    /* in each 128 bits, a sum of four lanes of x[0], x[1], x[2] and x[3] */
    const VECTOR c = _mm512_shuffle_ps(a, b, 0x44) + _mm512_shuffle_ps(a, b, 0xee);
    const __m256 d = _mm512_castps512_ps256(c) + _mm512_extractf32x8_ps(c, 1);
    __m128 e = _mm256_castps256_ps128(d) + _mm256_extractf128_ps(d, 1);
    if (!first)
        e += _mm_loadu_ps(total);
    _mm_storeu_ps(total, e);
#else
    for (int u = 0; u < 4; u++)
        total[u] = first ? NAME(sum)(x[u]) : total[u] + NAME(sum)(x[u]);
#endif
}

/* e^x for x <= 0, to the last place or two; NaN stays NaN. */
INLINE TARGET VECTOR NAME(exp_of_negative)(VECTOR x)
{
#if DOUBLE
    for (int lane = 0; lane < LANES; lane++)
        x[lane] = __builtin_exp(x[lane]);
    return x;
#else
    /* x = n ln 2 + rest; adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits */
    const VECTOR shifted = x * 1.44269504088896341f + 12582912.0f, n = shifted - 12582912.0f;
    const VECTOR rest = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    VECTOR sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const VECTOR power = (VECTOR)(((INTEGERS)shifted + 127) << 23);
    return NAME(select)(x < -87.0f, (VECTOR){0}, sum * power);
#endif
}

/* Replaces scores by their exponentials, but for a factor, and returns what makes their sum one. */
INLINE TARGET REAL NAME(exponentials)(REAL *score, int64_t padded)
{
    VECTOR highest = SPREAD(-(REAL)INFINITY), sum = {0};
    for (int64_t v = 0; v < padded / LANES; v++)
        highest = NAME(select)(LOAD(score, v) > highest, LOAD(score, v), highest);
    const REAL most = NAME(highest)(highest);
    for (int64_t v = 0; v < padded / LANES; v++)
        sum += STORE(score, v) = NAME(exp_of_negative)(LOAD(score, v) - most);
    return 1 / NAME(sum)(sum);
}

/* Adds to the score of each edge what n vectors of channels from c on make of it, from c = 0 on:
   LeakyReLU(z) = slope z + (1 - slope) z where z > 0. Keeps the signs of z if wanted. */
INLINE TARGET void NAME(add_scores)(const gatv2_problem *p, const int n, const int featured,
                                    const EDGES *edges, int64_t i, int64_t h, int64_t c, REAL *score)
{
    const int64_t width = p->heads * p->channels, at = h * p->channels + c, F = p->features;
    const REAL *own = (const REAL *)p->x_r + i * width + at;
    const REAL slope = (REAL)p->negative_slope;
    VECTOR r[MOST], a[MOST];
    EACH(v) {
        r[v] = LOAD(own, v);
        a[v] = LOAD((const REAL *)p->att + at, v);
    }
    KEPT *signs_at = p->signs ? (KEPT *)p->signs + at / LANES : NULL;
    for (int64_t k = 0; k < edges->degree; k += 4) {
        VECTOR parts[4];
        EACH_OF_4(u) {
            const REAL *l = (const REAL *)p->x_l + at + edges->row[k + u];
            OPAQUE(l);
            VECTOR z[MOST], everywhere = {0}, positive = {0};
            SIGNS signs[MOST];
            EACH(v) z[v] = LOAD(l, v) + r[v];
            if (featured) {
                const int64_t edge = edges->edge[k + u];
                for (int64_t f = 0; f < F; f++) {
                    const REAL *w = (const REAL *)p->edge_weight + f * width + at;
                    const REAL e = ((const REAL *)p->edge_attr)[edge * F + f];
                    EACH(v) z[v] += LOAD(w, v) * e;
                }
                if (p->edge_rows) {
                    const REAL *row = (const REAL *)p->edge_rows + edge * width + at;
                    EACH(v) z[v] += LOAD(row, v);
                }
            }
            EACH(v) {
                signs[v] = POSITIVE(z[v]);
                everywhere += a[v] * z[v];
                positive = FMA_WHERE(signs[v], positive, a[v], z[v]);
            }
            if (signs_at) {
                KEPT *kept = signs_at + edges->kept[k + u];
                OPAQUE(kept);
                /* volatile: stored one by one, and not first packed into a wider word */
                EACH(v) *(volatile KEPT *)(kept + v) = AS_KEPT(signs[v]);
            }
            parts[u] = everywhere * slope + positive * (1 - slope);
        }
        NAME(add_sums)(parts, c == 0, score + k);
    }
}

/* out = bias + sum over edges of weight l */
INLINE TARGET void NAME(sum_rows)(const int n, const EDGES *edges, const REAL *rows,
                                  const REAL *weight, const REAL *bias, REAL *out)
{
    VECTOR sum[MOST];
    EACH(v) sum[v] = bias ? LOAD(bias, v) : (VECTOR){0};
    for (int64_t k = 0; k < edges->degree; k++)
        EACH(v) sum[v] += LOAD(rows + edges->row[k], v) * weight[k];
    EACH(v) STORE(out, v) = sum[v];
}

/* The scores of the edges of target i in head h. */
INLINE TARGET void NAME(write_scores)(const gatv2_problem *p, const EDGES *edges, int64_t i, int64_t h,
                                      REAL *score)
{
    const int64_t C = p->channels;
#define SCORES(n, c) NAME(add_scores)(p, n, 0, edges, i, h, c, score)
#define FEATURED_SCORES(n, c) NAME(add_scores)(p, n, 1, edges, i, h, c, score)
    if (p->features || p->edge_rows)
        OVER_BLOCKS(FEATURED_SCORES)
    else
        OVER_BLOCKS(SCORES)
    for (int64_t k = edges->degree; k < PADDED(edges->degree); k++)
        score[k] = -(REAL)INFINITY;
}

/* Scores become attention, which is written, and then what messages are multiplied with. */
INLINE TARGET void NAME(write_alpha)(const gatv2_problem *p, const EDGES *edges, int64_t h, REAL *weight)
{
    const REAL *keep = p->keep;
    REAL *alpha = p->alpha;
    const REAL scale = NAME(exponentials)(weight, PADDED(edges->degree));
    for (int64_t k = 0; k < edges->degree; k++) {
        const int64_t place = edges->edge[k] * p->heads + h;
        weight[k] *= scale;
        alpha[place] = weight[k];
        if (keep)
            weight[k] *= keep[place];
    }
}

TARGET static int NAME(messages)(const gatv2_problem *given, int64_t chunk, int64_t begin, int64_t end)
{
    const gatv2_problem copy = *given, *p = &copy; /* that no store can change */
    const int64_t H = p->heads, C = p->channels, width = H * C;
    EDGES edges;
    (void)chunk;
    if (NAME(allocate)(p, p->ptr, begin, end, &edges))
        return 1;
    for (int64_t i = begin; i < end; i++) {
        NAME(find)(&edges, p->source, p->edge, p->ptr[i], p->ptr[i + 1], width);
        const int64_t padded = PADDED(edges.degree);
        NAME(write_scores)(p, &edges, i, 0, edges.weight);
        for (int64_t h = 0; h < H; h++) {
            REAL *weight = edges.weight + h * padded;
            /* The next head's first: what was stored in pieces is loaded whole only after a while. */
            if (h + 1 < H)
                NAME(write_scores)(p, &edges, i, h + 1, weight + padded);
            NAME(write_alpha)(p, &edges, h, weight);
#define MESSAGES(n, c)                                                                \
    NAME(sum_rows)(n, &edges, (const REAL *)p->x_l + h * C + c, weight,                \
                   p->bias ? (const REAL *)p->bias + h * C + c : NULL,                 \
                   (REAL *)p->out + i * width + h * C + c)
            OVER_BLOCKS(MESSAGES)
        }
    }
    free(edges.memory);
    return 0;
}

/* Writes g . l of each edge, or adds it. */
INLINE TARGET void NAME(add_products)(const int n, const EDGES *edges, const REAL *grad_out,
                                      const REAL *x_l, int first, REAL *product)
{
    VECTOR g[MOST];
    EACH(v) g[v] = LOAD(grad_out, v);
    for (int64_t k = 0; k < edges->degree; k += 4) {
        VECTOR parts[4];
        EACH_OF_4(u) {
            const REAL *l = x_l + edges->row[k + u];
            OPAQUE(l);
            parts[u] = (VECTOR){0};
            EACH(v) parts[u] += LOAD(l, v) * g[v];
        }
        NAME(add_sums)(parts, first, product + k);
    }
}

/* sums = sum over edges of factor t / ds, where factor is ds or ds times a feature. */
INLINE TARGET void NAME(sum_slopes)(const gatv2_problem *p, const int n, const EDGES *edges, int64_t h,
                                    int64_t c, const REAL *factor, VECTOR *sums)
{
    const REAL slope = (REAL)p->negative_slope;
    const KEPT *signs = (const KEPT *)p->signs + (h * p->channels + c) / LANES;
    REAL everywhere = 0;
    EACH(v) sums[v] = (VECTOR){0};
    for (int64_t k = 0; k < edges->degree; k++) {
        const KEPT *kept = signs + edges->kept[k];
        const VECTOR positive = SPREAD(factor[k]);
        everywhere += factor[k];
        EACH(v) sums[v] = ADD_WHERE(AS_SIGNS(kept[v]), sums[v], positive);
    }
    EACH(v) sums[v] = sums[v] * (1 - slope) + everywhere * slope;
}

INLINE TARGET void NAME(target_block)(const gatv2_problem *p, const int n, const EDGES *edges,
                                      int64_t i, int64_t h, int64_t c, const REAL *ds, REAL *grad_att,
                                      REAL *grad_bias)
{
    const int64_t at = h * p->channels + c, own = i * p->heads * p->channels + at;
    VECTOR sums[MOST];
    NAME(sum_slopes)(p, n, edges, h, c, ds, sums);
    EACH(v) {
        STORE((REAL *)p->grad_x_r + own, v) = sums[v] * LOAD((const REAL *)p->att + at, v);
        STORE(grad_att + at, v) += sums[v] * LOAD((const REAL *)p->x_r + own, v);
    }
    if (grad_bias)
        EACH(v) STORE(grad_bias + at, v) += LOAD((const REAL *)p->grad_out + own, v);
}

/* Adds to the gradient of W for one feature, but for the factor a; `factor` is ds times it. */
INLINE TARGET void NAME(weight_block)(const gatv2_problem *p, const int n, const EDGES *edges,
                                      int64_t h, int64_t c, const REAL *factor, REAL *grad_weight)
{
    VECTOR sums[MOST];
    NAME(sum_slopes)(p, n, edges, h, c, factor, sums);
    EACH(v) STORE(grad_weight, v) += sums[v];
}

/* Gradients of one edge's features, or of its projected features and what these add to that of a. */
INLINE TARGET void NAME(edge_gradients)(const gatv2_problem *p, int64_t edge, int64_t h, REAL ds,
                                        REAL *grad_att)
{
    const int64_t C = p->channels, width = p->heads * C, F = p->features;
    const REAL slope = (REAL)p->negative_slope;
    const REAL *a = (const REAL *)p->att + h * C;
    const KEPT *kept = (const KEPT *)p->signs + (edge * width + h * C) / LANES;
    if (p->grad_edge_rows) {
        const REAL *row = (const REAL *)p->edge_rows + edge * width + h * C;
        REAL *grad = (REAL *)p->grad_edge_rows + edge * width + h * C;
        const VECTOR everywhere = SPREAD(ds * slope), positive = SPREAD(ds * (1 - slope));
        for (int64_t v = 0; v < C / LANES; v++) {
            const VECTOR t = ADD_WHERE(AS_SIGNS(kept[v]), everywhere, positive);
            STORE(grad, v) = t * LOAD(a, v);
            STORE(grad_att + h * C, v) += t * LOAD(row, v);
        }
    }
    if (p->grad_edge_attr)
        for (int64_t f = 0; f < F; f++) {
            const REAL *w = (const REAL *)p->edge_weight + f * width + h * C;
            VECTOR everywhere = {0}, positive = {0};
            for (int64_t v = 0; v < C / LANES; v++) {
                everywhere += LOAD(a, v) * LOAD(w, v);
                positive = FMA_WHERE(AS_SIGNS(kept[v]), positive, LOAD(a, v), LOAD(w, v));
            }
            ((REAL *)p->grad_edge_attr)[edge * F + f] +=
                ds * NAME(sum)(everywhere * slope + positive * (1 - slope));
        }
}

/* The gradients of alpha on the edges of target i in head h, beside alpha. */
INLINE TARGET void NAME(write_alpha_gradients)(const gatv2_problem *p, const EDGES *edges, int64_t i,
                                               int64_t h, REAL *alpha, REAL *grad)
{
    const int64_t H = p->heads, C = p->channels, degree = edges->degree;
    const REAL *keep = p->keep, *grad_alpha = p->grad_alpha;
#define PRODUCTS(n, c)                                                                       \
    NAME(add_products)(n, edges, (const REAL *)p->grad_out + (i * H + h) * C + c,             \
                       (const REAL *)p->x_l + h * C + c, c == 0, grad)
    OVER_BLOCKS(PRODUCTS)
    for (int64_t k = 0; k < degree; k++) {
        const int64_t place = edges->edge[k] * H + h;
        alpha[k] = ((const REAL *)p->alpha)[place];
        if (keep)
            grad[k] *= keep[place];
        if (grad_alpha)
            grad[k] += grad_alpha[place];
    }
    for (int64_t k = degree; k < PADDED(degree); k++)
        alpha[k] = grad[k] = 0;
}

/* Gradients of alpha become those of the scores. Kept for the sources: these, and alpha keep. */
INLINE TARGET void NAME(write_score_gradients)(const gatv2_problem *p, const EDGES *edges, int64_t h,
                                               const REAL *alpha, REAL *grad)
{
    const int64_t padded = PADDED(edges->degree);
    const REAL *keep = p->keep;
    REAL *pairs = p->pairs;
    VECTOR total = {0};
    for (int64_t v = 0; v < padded / LANES; v++)
        total += LOAD(alpha, v) * LOAD(grad, v);
    const REAL mean = NAME(sum)(total);
    for (int64_t v = 0; v < padded / LANES; v++)
        STORE(grad, v) = LOAD(alpha, v) * (LOAD(grad, v) - mean);
    for (int64_t k = 0; k < edges->degree; k++) {
        const int64_t place = edges->edge[k] * p->heads + h;
        pairs[2 * place] = grad[k];
        pairs[2 * place + 1] = keep ? alpha[k] * keep[place] : alpha[k];
    }
}

TARGET static int NAME(target_gradients)(const gatv2_problem *given, int64_t chunk, int64_t begin,
                                         int64_t end)
{
    const gatv2_problem copy = *given, *p = &copy; /* that no store can change */
    const int64_t H = p->heads, C = p->channels, F = p->features, width = H * C;
    REAL *grad_att = (REAL *)p->grad_att + chunk * width;
    REAL *grad_bias = p->grad_bias ? (REAL *)p->grad_bias + chunk * width : NULL;
    REAL *grad_weight = F ? (REAL *)p->grad_edge_weight + chunk * F * width : NULL;
    EDGES edges;
    if (NAME(allocate)(p, p->ptr, begin, end, &edges))
        return 1;
    for (int64_t i = begin; i < end; i++) {
        NAME(find)(&edges, p->source, p->edge, p->ptr[i], p->ptr[i + 1], width);
        const int64_t degree = edges.degree, padded = PADDED(degree);
        NAME(write_alpha_gradients)(p, &edges, i, 0, edges.weight, edges.score);
        for (int64_t h = 0; h < H; h++) {
            REAL *ds = edges.score + h * padded, *factor = edges.weight + h * padded;
            /* the next head's first, as in messages() */
            if (h + 1 < H)
                NAME(write_alpha_gradients)(p, &edges, i, h + 1, factor + padded, ds + padded);
            NAME(write_score_gradients)(p, &edges, h, factor, ds);
#define TARGETS(n, c) NAME(target_block)(p, n, &edges, i, h, c, ds, grad_att, grad_bias)
            OVER_BLOCKS(TARGETS)
            for (int64_t f = 0; f < F; f++) {
                for (int64_t k = 0; k < degree; k++)
                    factor[k] = ds[k] * ((const REAL *)p->edge_attr)[edges.edge[k] * F + f];
#define WEIGHTS(n, c) \
    NAME(weight_block)(p, n, &edges, h, c, factor, grad_weight + f * width + h * C + c)
                OVER_BLOCKS(WEIGHTS)
            }
            if (p->grad_edge_attr || p->grad_edge_rows)
                for (int64_t k = 0; k < degree; k++)
                    NAME(edge_gradients)(p, edges.edge[k], h, ds[k], grad_att);
        }
    }
    for (int64_t f = 0; f < F; f++)
        for (int64_t c = 0; c < width; c++) {
            grad_att[c] += grad_weight[f * width + c] * ((const REAL *)p->edge_weight)[f * width + c];
            grad_weight[f * width + c] *= ((const REAL *)p->att)[c];
        }
    free(edges.memory);
    return 0;
}

INLINE TARGET void NAME(source_block)(const gatv2_problem *p, const int n, const EDGES *edges,
                                      int64_t j, int64_t h, int64_t c, REAL *grad_att)
{
    const int64_t at = h * p->channels + c, own = j * p->heads * p->channels + at;
    const REAL slope = (REAL)p->negative_slope;
    const KEPT *signs = (const KEPT *)p->signs + at / LANES;
    const REAL *grad_out = (const REAL *)p->grad_out + at, *pairs = (const REAL *)p->pairs + 2 * h;
    REAL everywhere = 0;
    VECTOR slopes[MOST], messages[MOST];
    EACH(v) slopes[v] = messages[v] = (VECTOR){0};
    for (int64_t k = 0; k < edges->degree; k++) {
        const KEPT *kept = signs + edges->kept[k];
        const REAL *g = grad_out + edges->row[k];
        const REAL *pair = pairs + edges->edge[k] * p->heads * 2, ds = pair[0], weight = pair[1];
        const VECTOR positive = SPREAD(ds);
        everywhere += ds;
        EACH(v) {
            slopes[v] = ADD_WHERE(AS_SIGNS(kept[v]), slopes[v], positive);
            messages[v] += LOAD(g, v) * weight;
        }
    }
    EACH(v) {
        const VECTOR sum = slopes[v] * (1 - slope) + everywhere * slope;
        STORE((REAL *)p->grad_x_l + own, v) =
            sum * LOAD((const REAL *)p->att + at, v) + messages[v];
        STORE(grad_att + at, v) += sum * LOAD((const REAL *)p->x_l + own, v);
    }
}

TARGET static int NAME(source_gradients)(const gatv2_problem *given, int64_t chunk, int64_t begin,
                                         int64_t end)
{
    const gatv2_problem copy = *given, *p = &copy; /* that no store can change */
    const int64_t H = p->heads, C = p->channels, width = H * C;
    REAL *grad_att = (REAL *)p->grad_att + chunk * width;
    EDGES edges;
    if (NAME(allocate)(p, p->transposed_ptr, begin, end, &edges))
        return 1;
    for (int64_t j = begin; j < end; j++) {
        NAME(find)(&edges, p->transposed_target, p->transposed_edge, p->transposed_ptr[j],
                   p->transposed_ptr[j + 1], width);
        /* what the next source's edges keep lies anywhere: fetched while this one is worked on */
        for (int64_t k = p->transposed_ptr[j + 1]; j + 1 < end && k < p->transposed_ptr[j + 2]; k++) {
            const int64_t edge = p->transposed_edge[k];
            const char *signs = (const char *)((const KEPT *)p->signs + edge * (width / LANES));
            const char *pairs = (const char *)((const REAL *)p->pairs + edge * 2 * H);
            for (int64_t byte = 0; byte < width / LANES * (int64_t)sizeof(KEPT); byte += 64)
                __builtin_prefetch(signs + byte);
            for (int64_t byte = 0; byte < 2 * H * (int64_t)sizeof(REAL); byte += 64)
                __builtin_prefetch(pairs + byte);
        }
        for (int64_t h = 0; h < H; h++) {
#define SOURCES(n, c) NAME(source_block)(p, n, &edges, j, h, c, grad_att)
            OVER_BLOCKS(SOURCES)
        }
    }
    free(edges.memory);
    return 0;
}

#undef VECTOR
#undef INTEGERS
#undef EDGES
#undef LANES
#undef PADDED
#undef SPREAD
#undef LOAD
#undef STORE
#undef SIGNS
#undef KEPT
#undef POSITIVE
#undef AS_SIGNS
#undef AS_KEPT
#undef ADD_WHERE
#undef FMA_WHERE
#undef SCORES
#undef FEATURED_SCORES
#undef MESSAGES
#undef PRODUCTS
#undef TARGETS
#undef WEIGHTS
#undef SOURCES
#undef DOUBLE
#undef SET
#undef AVX2
#undef AVX512
#undef REAL
#undef INTEGER
#undef TYPE
#undef MASK
#undef MASKED
#undef MOVEMASK
#undef TARGET
#undef VECTOR_BYTES
#undef MOST
