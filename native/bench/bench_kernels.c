/* bench_kernels.c - how fast each kernel of one kernel set is, on one thread.
 *
 *   bench_kernels [-c generic|avx2|neon|dotprod] [-k K] [-r ROWS] [-t SECONDS] [FORMAT...]
 *
 * Matmuls: ROWS x K weights (default 1024 x 2048: in cache; -r 65536 reads from DRAM) times 1, 4,
 * 16 and 128 activation rows. Every figure is the fastest of the runs that fit SECONDS (default
 * 0.05): on a shared machine only the fastest says something about the kernel. Formats: as `llamad
 * inspect` names them; none: all, and the vector and attention kernels. Checks nothing:
 * test_kernels_*.c do. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"
#include "kernels/kernels.h"
#include "llamad_engine.h"

enum { MAX_COLS = 128, HEAD_DIM = 64, QUERIES = 32 };

static const size_t column_counts[] = {1, 2, 4, 16, 128};

typedef struct options {
    const char *cpu;
    size_t k, n_rows;
    double seconds;
} options;

/* Time this thread ran: a call interrupted by another process is not counted as slow. */
static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == NULL) {
        fprintf(stderr, "bench_kernels: out of memory: %zu bytes\n", bytes);
        exit(1);
    }
    memset(p, 0, bytes);
    return p;
}

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

static void fill_floats(float *x, size_t n)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) x[i] = (float)(int32_t)next_random(&state) * 0x1p-31f;
}

/* Seconds of the fastest call of work(context), batched so that the clock's cost does not show. */
static double fastest(void (*work)(void *context), void *context, double seconds)
{
    size_t batch = 1;
    double best = 1e30, start = now_seconds();
    work(context);
    while (now_seconds() - start < seconds || best == 1e30) {
        double begin = now_seconds();
        for (size_t i = 0; i < batch; i++) work(context);
        double each = (now_seconds() - begin) / (double)batch;
        best = each < best ? each : best;
        if (each * (double)batch < 1e-4) batch *= 2;
    }
    return best;
}

/* ---- memory ------------------------------------------------------------------------------ */

enum { READ_BYTES = 128 << 20 };

static void read_all(void *context)
{
    const uint64_t *words = context;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < READ_BYTES / sizeof *words; i += 8)
        for (size_t j = 0; j < 8; j++) sum[j] += words[i + j];
    volatile uint64_t sink = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
    (void)sink;
}

/* Bytes a second that one thread reads from memory, sequentially. */
static double read_bandwidth(double seconds)
{
    void *words = allocate(READ_BYTES);
    double best = fastest(read_all, words, seconds);
    free(words);
    return READ_BYTES / best;
}

/* ---- matmul ------------------------------------------------------------------------------ */

typedef struct matmul_case {
    lld_matmul_fn matmul;
    float *out;
    uint8_t *w;
    size_t row_bytes, n_rows;
    lld_acts x;
    void *scratch;
} matmul_case;

static void run_matmul(void *context)
{
    matmul_case *m = context;
    m->matmul(&(lld_matmul){.out = m->out,
                            .out_stride = m->n_rows,
                            .w = m->w,
                            .row_bytes = m->row_bytes,
                            .n_rows = m->n_rows,
                            .x = &m->x,
                            .scratch = m->scratch});
}

/* Random payload; the float fields are whatever bytes fall there, cleared of infinities and NaN. */
static uint8_t *random_weights(size_t bytes)
{
    uint8_t *w = allocate(bytes);
    uint32_t state = 7;
    for (size_t i = 0; i < bytes; i++) w[i] = (uint8_t)(next_random(&state) >> 24) & 0xBB;
    return w;
}

static matmul_case matmul_create(const lld_kernels *kernels, uint32_t type, const options *o)
{
    matmul_case m = {.matmul = kernels->matmul[type],
                     .n_rows = o->n_rows,
                     .row_bytes = lld_type_row_bytes(type, o->k)};
    float *values = allocate(MAX_COLS * o->k * sizeof *values);
    fill_floats(values, MAX_COLS * o->k);
    m.w = random_weights(m.n_rows * m.row_bytes);
    for (size_t i = 0; type == LLD_MXFP4 && i < m.n_rows * m.row_bytes;
         i += sizeof(lld_block_mxfp4))
        m.w[i] = 120; /* any exponent would make subnormals, which are slow */
    m.out = allocate(MAX_COLS * m.n_rows * sizeof *m.out);
    m.scratch = allocate(lld_kernels_scratch_bytes(o->k));
    m.x = (lld_acts){.n_rows = MAX_COLS, .n_cols = o->k, .f32 = values, .y_stride = o->k};
    m.x.y = allocate(MAX_COLS * o->k);
    m.x.d = allocate(MAX_COLS * o->k / LLD_QK * sizeof(float));
    m.x.s = allocate(MAX_COLS * o->k / LLD_QK * sizeof(float));
    m.x.sum = allocate(MAX_COLS * o->k / LLD_QK * sizeof(int32_t));
    m.x.sum16 = allocate(MAX_COLS * o->k / 16 * sizeof(int16_t));
    const lld_act_kind kind = lld_type_act_kind(type);
    for (size_t c = 0; c < MAX_COLS && kind != LLD_ACT_F32; c++)
        (kind == LLD_ACT_Q8 ? kernels->quantize_q8 : kernels->quantize_q8k)(values + c * o->k, o->k,
                                                                            &m.x, c);
    return m;
}

static void matmul_free(matmul_case *m)
{
    free((void *)(uintptr_t)m->x.f32);
    free(m->w);
    free(m->out);
    free(m->scratch);
    free(m->x.y);
    free(m->x.d);
    free(m->x.s);
    free(m->x.sum);
    free(m->x.sum16);
}

static void bench_matmul(const lld_kernels *kernels, uint32_t type, const options *o,
                         double bandwidth)
{
    if (o->k % lld_type_block(type) != 0) return;
    matmul_case m = matmul_create(kernels, type, o);
    for (size_t i = 0; i < sizeof column_counts / sizeof column_counts[0]; i++) {
        m.x.n_rows = column_counts[i];
        double t = fastest(run_matmul, &m, o->seconds);
        double weights = (double)(m.n_rows * o->k), bytes = (double)(m.n_rows * m.row_bytes);
        printf("%-8s %5zu %12.0f %8.2f %6.0f %%   %8.2f %8.2f\n", lld_type_name(type), m.x.n_rows,
               t * 1e9, bytes / t * 1e-9, 100.0 * bytes / t / bandwidth, weights / t * 1e-9,
               weights * (double)m.x.n_rows / t * 1e-9);
    }
    matmul_free(&m);
}

/* ---- vectors and attention --------------------------------------------------------------- */

/* One KV block and n_q queries of HEAD_DIM; or vectors of n elements in `in`, `out`. */
typedef struct vector_case {
    const lld_kernels *kernels;
    size_t n, n_q;
    float *in, *out, *scores;
    lld_acts acts;
    void *k, *v;
    uint16_t *kd, *vd;
} vector_case;

static void run_quantize_q8(void *context)
{
    vector_case *c = context;
    c->kernels->quantize_q8(c->in, c->n, &c->acts, 0);
}

static void run_quantize_q8k(void *context)
{
    vector_case *c = context;
    c->kernels->quantize_q8k(c->in, c->n, &c->acts, 0);
}

static void run_rmsnorm(void *context)
{
    vector_case *c = context;
    c->kernels->rmsnorm(c->out, c->in, c->in, c->n, 1e-5f);
}

static void run_silu_mul(void *context)
{
    vector_case *c = context;
    memcpy(c->out, c->in, c->n * sizeof *c->in);
    c->kernels->silu_mul(c->out, c->in, c->n);
}

static void run_softmax(void *context)
{
    vector_case *c = context;
    float sum;
    memcpy(c->out, c->in, 256 * sizeof *c->in);
    c->kernels->attn_softmax(c->out, 256, &sum);
}

static void run_hadamard(void *context)
{
    vector_case *c = context;
    memcpy(c->out, c->in, HEAD_DIM * sizeof *c->in);
    c->kernels->hadamard(c->out, HEAD_DIM);
}

static void run_kv_store_q8(void *context)
{
    const vector_case *c = context;
    c->kernels->kv_store_q8(c->k, c->kd, c->v, c->vd, 5, c->in, c->in + HEAD_DIM, HEAD_DIM);
}

static void run_kv_store_q4(void *context)
{
    const vector_case *c = context;
    c->kernels->kv_store_q4(c->k, c->kd, c->v, c->vd, 5, c->in, c->in + HEAD_DIM, HEAD_DIM);
}

/* What keys of q4_0 take more than those of q8_0, whatever the number of queries. */
static void run_kv_unpack_q4(void *context)
{
    const vector_case *c = context;
    c->kernels->kv_unpack_q4(c->k, c->v, HEAD_DIM / 2 * LLD_KV_BLOCK, LLD_KV_BLOCK);
}

static lld_attn_scores scores_of(const vector_case *c)
{
    return (lld_attn_scores){.scores = c->scores,
                             .score_stride = LLD_KV_BLOCK,
                             .q = c->in,
                             .q_stride = HEAD_DIM,
                             .n_q = c->n_q,
                             .head_dim = HEAD_DIM,
                             .k = c->k,
                             .kd = c->kd};
}

static lld_attn_values values_of(const vector_case *c)
{
    return (lld_attn_values){.acc = c->out,
                             .acc_stride = HEAD_DIM,
                             .p = c->scores,
                             .p_stride = LLD_KV_BLOCK,
                             .n_q = c->n_q,
                             .head_dim = HEAD_DIM,
                             .n_tokens = LLD_KV_BLOCK,
                             .v = c->v,
                             .vd = c->vd};
}

static void run_scores_f16(void *context)
{
    const lld_attn_scores s = scores_of(context);
    ((vector_case *)context)->kernels->attn_scores_f16(&s);
}

static void run_scores_q8(void *context)
{
    const lld_attn_scores s = scores_of(context);
    ((vector_case *)context)->kernels->attn_scores_q8(&s);
}

static void run_values_f16(void *context)
{
    const lld_attn_values v = values_of(context);
    ((vector_case *)context)->kernels->attn_values_f16(&v);
}

static void run_values_q8(void *context)
{
    const lld_attn_values v = values_of(context);
    ((vector_case *)context)->kernels->attn_values_q8(&v);
}

static void bench_vectors(const lld_kernels *kernels, const options *o)
{
    const size_t n = o->k > QUERIES * HEAD_DIM ? o->k : QUERIES * HEAD_DIM;
    vector_case c = {.kernels = kernels,
                     .n = o->k / LLD_QK_K * LLD_QK_K,
                     .in = allocate(n * sizeof(float)),
                     .out = allocate(n * sizeof(float)),
                     .scores = allocate(QUERIES * LLD_KV_BLOCK * sizeof(float)),
                     .k = allocate(HEAD_DIM * LLD_KV_BLOCK * 2),
                     .v = allocate(HEAD_DIM * LLD_KV_BLOCK * 2),
                     .kd = allocate(HEAD_DIM * 2),
                     .vd = allocate(HEAD_DIM * 2)};
    fill_floats(c.in, n);
    c.acts = (lld_acts){.n_rows = 1,
                        .n_cols = c.n,
                        .y_stride = c.n,
                        .y = allocate(n),
                        .d = allocate(n),
                        .s = allocate(n),
                        .sum = allocate(n),
                        .sum16 = allocate(n)};
    const struct {
        const char *name;
        void (*run)(void *);
    } vectors[] = {{"quantize_q8", run_quantize_q8},  {"quantize_q8k", run_quantize_q8k},
                   {"rmsnorm", run_rmsnorm},          {"silu_mul", run_silu_mul},
                   {"attn_softmax 256", run_softmax}, {"hadamard, head", run_hadamard},
                   {"kv_store_q8", run_kv_store_q8},  {"kv_store_q4", run_kv_store_q4},
                   {"kv_unpack_q4", run_kv_unpack_q4}};
    const struct {
        const char *name;
        void (*run)(void *);
    } blocks[] = {{"attn_scores_f16", run_scores_f16},
                  {"attn_scores_q8", run_scores_q8},
                  {"attn_values_f16", run_values_f16},
                  {"attn_values_q8", run_values_q8}};
    printf("\nvectors of %zu\n", c.n);
    for (size_t i = 0; c.n > 0 && i < sizeof vectors / sizeof vectors[0]; i++)
        printf("%-16s %10.0f ns\n", vectors[i].name, fastest(vectors[i].run, &c, o->seconds) * 1e9);
    printf("\none KV block, head_dim %d            1        3       32 queries, GMAC/s\n",
           HEAD_DIM);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        printf("%-32s", blocks[i].name);
        for (size_t q = 0; q < 3; q++) {
            c.n_q = (const size_t[]){1, 3, QUERIES}[q];
            double t = fastest(blocks[i].run, &c, o->seconds);
            printf(" %8.2f", (double)(c.n_q * HEAD_DIM * LLD_KV_BLOCK) / t * 1e-9);
        }
        printf("\n");
    }
    void *buffers[] = {c.in, c.out,    c.scores, c.k,      c.v,        c.kd,
                       c.vd, c.acts.y, c.acts.d, c.acts.s, c.acts.sum, c.acts.sum16};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) free(buffers[i]);
}

/* ---- states ------------------------------------------------------------------------------ */

typedef struct state_case {
    const lld_kernels *kernels;
    lld_state_step step;
} state_case;

static void run_delta_step(void *context)
{
    const state_case *c = context;
    c->kernels->delta_step(&c->step);
}

static void run_scan_step(void *context)
{
    const state_case *c = context;
    c->kernels->scan_step(&c->step);
}

/* One head of Qwen3.5, (128, 128), and of Mamba-2, (128, 64). */
static void bench_states(const lld_kernels *kernels, const options *o)
{
    enum { N = 128 };
    float *state = allocate(N * N * sizeof(float)), *in = allocate(3 * N * sizeof(float)), out[N];
    fill_floats(state, N * N);
    fill_floats(in, 3 * N);
    state_case c = {.kernels = kernels,
                    .step = {.state = state,
                             .q = in,
                             .k = in + N,
                             .v = in + 2 * N,
                             .out = out,
                             .decay = 0.5f,
                             .beta = 0.01f,
                             .n_rows = N,
                             .n_cols = N}};
    printf("\nstate of one head\n");
    printf("%-16s %10.0f ns\n", "delta_step", fastest(run_delta_step, &c, o->seconds) * 1e9);
    c.step.n_cols = N / 2;
    printf("%-16s %10.0f ns\n", "scan_step", fastest(run_scan_step, &c, o->seconds) * 1e9);
    free(state);
    free(in);
}

/* ---- the command ------------------------------------------------------------------------- */

static bool wanted(uint32_t type, char *const *names, int n_names)
{
    for (int i = 0; i < n_names; i++)
        if (strcasecmp(names[i], lld_type_name(type)) == 0) return true;
    return n_names == 0;
}

int main(int argc, char **argv)
{
    options o = {.k = 2048, .n_rows = 1024, .seconds = 0.05};
    uint32_t flags;
    for (int c; (c = getopt(argc, argv, "c:k:r:t:")) != -1;) {
        if (c == 'c')
            o.cpu = optarg;
        else if (c == 'k')
            o.k = strtoul(optarg, NULL, 10);
        else if (c == 'r')
            o.n_rows = strtoul(optarg, NULL, 10);
        else if (c == 't')
            o.seconds = strtod(optarg, NULL);
        else
            return 2;
    }
    if (lld_cpu_select(o.cpu, &flags) != LLD_OK || o.k == 0 || o.k % 8 != 0 || o.n_rows == 0) {
        fprintf(stderr, "usage: bench_kernels [-c SET] [-k K, a multiple of 8] [-r ROWS] [-t "
                        "SECONDS] [FORMAT...]\n");
        return 2;
    }
    const lld_kernels *kernels = lld_kernels_get(flags);
    const double bandwidth = read_bandwidth(o.seconds);
    printf("%s, one thread, %zu x %zu; memory reads at %.1f GB/s\n\n", kernels->name, o.n_rows, o.k,
           bandwidth * 1e-9);
    printf("%-8s %5s %12s %8s %8s   %8s %8s\n", "format", "cols", "ns", "GB/s", "of read", "Gw/s",
           "GMAC/s");
    for (uint32_t type = 0; type < LLD_TYPE_COUNT; type++)
        if (lld_type_supported(type) && wanted(type, argv + optind, argc - optind))
            bench_matmul(kernels, type, &o, bandwidth);
    if (optind == argc) {
        bench_vectors(kernels, &o);
        bench_states(kernels, &o);
    }
    return 0;
}
