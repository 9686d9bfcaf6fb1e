/* The messages of GATv2 and their gradients, node by node.

   For each target node and head: the scores of the edges that enter it, their softmax and the
   weighted sum, while the rows of its neighbours are in cache. Gradients: one loop over the targets,
   for the scores, the targets and the parameters; one over the sources, through the transposed
   order, for the sources. Nothing of size [E, H, C] is made, and no two threads write to one place.

   The file knows nothing of Python or torch; compiled.py calls it through ctypes. */

#include "gatv2.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define NAME(base) JOIN(base, TYPE, SET)

#define INLINE static inline __attribute__((always_inline))

/* Makes the compiler keep this pointer in a register, and not one for each vector that it leads to. */
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

/* For each of n vectors of channels; n is known to the compiler. */
#define UNROLLED _Pragma("GCC unroll 8")
#define EACH(v) UNROLLED for (int v = 0; v < n; v++)
#define EACH_OF_4(u) UNROLLED for (int u = 0; u < 4; u++)

/* Calls block(n, c) for all channels, in blocks of n vectors from channel c on. */
#define OVER_BLOCKS(block)                                         \
    for (int64_t c = 0; c < C;) {                                  \
        const int64_t left = (C - c) / LANES;                      \
        if (left >= MOST) {                                        \
            block(MOST, c);                                        \
            c += MOST * LANES;                                     \
        } else if (left >= 4) {                                    \
            block(4, c);                                           \
            c += 4 * LANES;                                        \
        } else if (left >= 2) {                                    \
            block(2, c);                                           \
            c += 2 * LANES;                                        \
        } else {                                                   \
            block(1, c);                                           \
            c += LANES;                                            \
        }                                                          \
    }

/* One copy of the kernels for each type and each instruction set; the machine chooses. */
#define DOUBLE 0
#define SET base
#include "gatv2_kernel.h"
#define DOUBLE 1
#define SET base
#include "gatv2_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_X86_SETS
#include <immintrin.h>

#define DOUBLE 0
#define AVX2
#define SET avx2
#include "gatv2_kernel.h"
#define DOUBLE 1
#define AVX2
#define SET avx2
#include "gatv2_kernel.h"

#define DOUBLE 0
#define AVX512
#define SET avx512
#include "gatv2_kernel.h"
#define DOUBLE 1
#define AVX512
#define SET avx512
#include "gatv2_kernel.h"
#endif

typedef int (*chunk_kernel)(const gatv2_problem *, int64_t chunk, int64_t begin, int64_t end);

typedef struct {
    chunk_kernel messages, target_gradients, source_gradients;
    int64_t (*signs_bytes)(int64_t channels);
} kernel_set;

#define KERNELS(type, set)                                          \
    {messages_##type##_##set, target_gradients_##type##_##set,      \
     source_gradients_##type##_##set, signs_bytes_##type##_##set}

/* Instruction sets: 0, what every machine of the kind has; 1, AVX2; 2, AVX-512. Tests lower the bar. */
int gatv2_highest_set = 2;

static int instruction_set(void)
{
    int set = 0;
#ifdef HAS_X86_SETS
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        set = 1;
    if (set == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        set = 2;
#endif
    return set < gatv2_highest_set ? set : gatv2_highest_set;
}

static kernel_set kernels(int is_double)
{
    static const kernel_set sets[2][3] = {
#ifdef HAS_X86_SETS
        {KERNELS(f32, base), KERNELS(f32, avx2), KERNELS(f32, avx512)},
        {KERNELS(f64, base), KERNELS(f64, avx2), KERNELS(f64, avx512)},
#else
        {KERNELS(f32, base)},
        {KERNELS(f64, base)},
#endif
    };
    return sets[is_double][instruction_set()];
}

/* The first node of a chunk: nodes and their edges together are shared out evenly. */
static int64_t first_node(const int64_t *ptr, int64_t num_nodes, int64_t chunk, int64_t num_chunks)
{
    const double work = (double)(ptr[num_nodes] + num_nodes) * chunk / num_chunks;
    int64_t low = 0, high = num_nodes;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if ((double)(ptr[middle] + middle) < work)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int over_chunks(const gatv2_problem *problem, chunk_kernel kernel, const int64_t *ptr,
                       int64_t num_nodes)
{
    const int64_t chunks = problem->num_chunks;
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) reduction(| : failed) \
    num_threads((int)problem->num_threads) if (problem->num_threads > 1)
#endif
    for (int64_t chunk = 0; chunk < chunks; chunk++)
        failed |= kernel(problem, chunk, first_node(ptr, num_nodes, chunk, chunks),
                         first_node(ptr, num_nodes, chunk + 1, chunks));
    return failed;
}

/* What the signs of one edge and head take. */
int64_t gatv2_signs_bytes(int64_t channels, int is_double)
{
    return kernels(is_double).signs_bytes(channels);
}

/* Both return 0, or 1 when there was no memory. */
int gatv2_messages(const gatv2_problem *problem, int is_double)
{
    return over_chunks(problem, kernels(is_double).messages, problem->ptr, problem->num_targets);
}

int gatv2_gradients(const gatv2_problem *problem, int is_double)
{
    const kernel_set set = kernels(is_double);
    return over_chunks(problem, set.target_gradients, problem->ptr, problem->num_targets) ||
           over_chunks(problem, set.source_gradients, problem->transposed_ptr,
                       problem->num_sources);
}

/* Stable counting sort: where each key begins, [size + 1], and the order, [count]. */
void gatv2_sort(const int64_t *key, int64_t count, int64_t size, int64_t *ptr, int64_t *order)
{
    memset(ptr, 0, (size_t)(size + 1) * sizeof(*ptr));
    for (int64_t i = 0; i < count; i++)
        ptr[key[i] + 1]++;
    for (int64_t k = 0; k < size; k++)
        ptr[k + 1] += ptr[k];
    /* ptr[k] moves on as the places of k are given away, and ends where k + 1 began. */
    for (int64_t i = 0; i < count; i++)
        order[ptr[key[i]]++] = i;
    memmove(ptr + 1, ptr, (size_t)size * sizeof(*ptr));
    ptr[0] = 0;
}
