/* What a decoder does for the next token of a few dozen answers, in single precision.

   Numbers of N answers lie by columns: feature after feature, N numbers each, N a multiple of 8. So a product reads each
   weight once and meets all answers with it, in registers. All sums run in an order that does not depend on the number of
   threads. prefloop/models/compiled.py compiles this file and holds it against the same arithmetic in torch. */

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#define PARALLEL(threads) _Pragma("omp parallel num_threads(threads)")
#define MINE(first, behind, count) \
    const long first = (count) * omp_get_thread_num() / omp_get_num_threads(), \
               behind = (count) * (omp_get_thread_num() + 1) / omp_get_num_threads();
#define THREAD omp_get_thread_num()
#else
#define PARALLEL(threads)
#define MINE(first, behind, count) const long first = 0, behind = (count);
#define THREAD 0
#endif

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef int i8 __attribute__((vector_size(32)));
#define V8(p) (*(v8 *)(p))
#define LINE 16 /* numbers in a line of the cache */
#define EACH(i, n) _Pragma("GCC unroll 12") for (int i = 0; i < n; i++)

/* ---------------------------------------------------------------------------------------------- products */

/* R rows of weights times 8 B columns: R B sums that stay in registers (12 of the 16 that AVX2 has). */
#define TILE(R, B) \
    static void tile_##R##_##B(const float *w, const float *bias, const float *x, float *y, long in, long n, int add) { \
        v8 sum[R][B]; \
        EACH(r, R) EACH(b, B) sum[r][b] = (add ? V8(y + r * n + 8 * b) : (v8){0}) + (bias ? bias[r] : 0.0f); \
        for (long start = 0; start < in; start += LINE) { \
            const long behind = start + LINE < in ? start + LINE : in; \
            EACH(r, R) __builtin_prefetch(w + (R + r) * in + start); /* the next tile's */ \
            for (long k = start; k < behind; k++) { \
                v8 column[B]; \
                EACH(b, B) column[b] = V8(x + k * n + 8 * b); \
                EACH(r, R) EACH(b, B) sum[r][b] += w[r * in + k] * column[b]; \
            } \
        } \
        EACH(r, R) EACH(b, B) V8(y + r * n + 8 * b) = sum[r][b]; \
    }
#define TILES(R, B) \
    TILE(R, B) TILE(1, B) \
    static void tiles_##B(const float *w, const float *bias, const float *x, float *y, long rows, long in, long n, int add) { \
        long r = 0; \
        for (; r + R <= rows; r += R) tile_##R##_##B(w + r * in, bias ? bias + r : 0, x, y + r * n, in, n, add); \
        for (; r < rows; r++) tile_1_##B(w + r * in, bias ? bias + r : 0, x, y + r * n, in, n, add); \
    }
TILES(12, 1) TILES(6, 2) TILES(4, 3) TILES(3, 4)
#define AT_ONCE 12 /* rows that stay in the first cache while all columns meet them; a multiple of every R */

/* y (+)= W x + b: W out in, x in n, y out n. */
void product(const float *w, const float *bias, const float *x, float *y, long out, long in, long n, int add, int threads) {
    PARALLEL(threads) {
        MINE(first, behind, (out + AT_ONCE - 1) / AT_ONCE) /* with any number of threads a row is in the same tile */
        for (long r = AT_ONCE * first; r < out && r < AT_ONCE * behind; r += AT_ONCE) {
            const long rows = out - r < AT_ONCE ? out - r : AT_ONCE;
            for (long j = 0; j < n; j += 32) {
                const long columns = n - j < 32 ? n - j : 32;
                (columns == 32 ? tiles_4 : columns == 24 ? tiles_3 : columns == 16 ? tiles_2 : tiles_1)(
                    w + r * in, bias ? bias + r : 0, x + j, y + r * n + j, rows, in, n, add);
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------------- a number at a time */

static inline v8 chosen(i8 which, v8 a, v8 b) { return (v8)((which & (i8)a) | (~which & (i8)b)); }

/* e^x within a rounding or two: 2^k times the series of e^r up to r^7, |r| <= ln(2) / 2, of which 5e-9 is left out. */
static inline v8 exponential(v8 x) {
    const v8 least = (v8){0} - 87.0f, most = (v8){0} + 88.0f;
    x = chosen(x > least, x, least);
    x = chosen(x < most, x, most);
    const v8 k = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest whole number: 1.5 * 2^23 leaves no room for less */
    const v8 r = (x - k * 0.693145752f) - k * 1.42860677e-6f;   /* ln(2) in two parts, the first exact when multiplied */
    v8 series = 1.0f / 720 + r * (1.0f / 5040);
    series = 1.0f / 120 + r * series;
    series = 1.0f / 24 + r * series;
    series = 1.0f / 6 + r * series;
    series = 0.5f + r * series;
    series = 1.0f + r * (1.0f + r * series);
    const i8 power = (__builtin_convertvector(k, i8) + 127) << 23;
    return series * (v8)power;
}

/* Every column without its mean if centred, over its root mean square: width n. */
void norm(const float *x, float *y, long width, long n, float eps, int centred) {
    for (long j = 0; j < n; j += 8) {
        v8 mean = {0}, square = {0};
        if (centred) {
            for (long d = 0; d < width; d++) mean += V8(x + d * n + j);
            mean /= (float)width;
        }
        for (long d = 0; d < width; d++) {
            const v8 here = V8(x + d * n + j) - mean;
            square += here * here;
        }
        v8 scale;
        EACH(l, 8) scale[l] = 1.0f / sqrtf(square[l] / width + eps);
        for (long d = 0; d < width; d++) V8(y + d * n + j) = (V8(x + d * n + j) - mean) * scale;
    }
}

/* The first half of up through x / (1 + e^-x), times the second: 2 width n -> width n. */
void gate(const float *up, float *y, long width, long n, int threads) {
    PARALLEL(threads) {
        MINE(first, behind, width * n / 8)
        for (long i = 8 * first; i < 8 * behind; i += 8) {
            const v8 x = V8(up + i);
            V8(y + i) = x / (1.0f + exponential(-x)) * V8(up + width * n + i);
        }
    }
}

/* ---------------------------------------------------------------------------------------------- attention */

typedef struct { /* as prefloop.models.compiled.Shape: sizes of a group of answers, decoder_group.py */
    long n_query, n_key, size;         /* heads, and features of each: a multiple of 8 */
    long n_prompts, n_answers;         /* cells: answer g to prompt p is in cell p n_answers + g */
    long n_before, room, filled;       /* columns of a prompt; columns that an answer's keys have, and how many count */
    long n, first;                     /* columns of the batch, and the first of this group's */
    long n_runs, most;                 /* stretches of rows that share a prompt; scores that a thread has room for */
} Shape;

#define AHEAD 16 /* keys */

static inline float sum_of(v8 x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

/* q k for one query and n keys behind each other; the largest score of these and of those before. The values are sent for,
   since they will be wanted next: memory is what attention waits for. */
static float scores_of(
    const float *q, const float *keys, const float *values, long n, long size, float *score, float largest) {
    for (long t = 0; t < n; t++) {
        for (long c = 0; c < size; c += LINE) {
            __builtin_prefetch(keys + (t + AHEAD) * size + c);
            __builtin_prefetch(values + t * size + c);
        }
        v8 sum = {0};
        for (long c = 0; c < size; c += 8) sum += V8(q + c) * V8(keys + t * size + c);
        score[t] = sum_of(sum);
        if (score[t] > largest) largest = score[t];
    }
    return largest;
}

/* out += the weighted sum of n values behind each other. */
static void add_values(const float *weight, const float *values, long n, long size, float *out) {
    long c = 0;
    for (; c + 32 <= size; c += 32) {
        v8 even[4], odd[4];
        EACH(b, 4) even[b] = V8(out + c + 8 * b), odd[b] = (v8){0};
        long t = 0;
        for (; t + 2 <= n; t += 2) {
            const float *here = values + t * size + c;
            EACH(b, 4) even[b] += weight[t] * V8(here + 8 * b), odd[b] += weight[t + 1] * V8(here + size + 8 * b);
        }
        if (t < n) EACH(b, 4) even[b] += weight[t] * V8(values + t * size + c + 8 * b);
        EACH(b, 4) V8(out + c + 8 * b) = even[b] + odd[b];
    }
    for (; c < size; c += 8) {
        v8 sum = V8(out + c);
        for (long t = 0; t < n; t++) sum += weight[t] * V8(values + t * size + c);
        V8(out + c) = sum;
    }
}

/* A column's features of one head, turned to their position where turn is given. */
static void gathered(const float *mixed, long head, long column, const Shape *s, const float *turn, float *out) {
    const float *from = mixed + head * s->size * s->n + column;
    for (long c = 0; c < s->size; c++) out[c] = from[c * s->n];
    if (turn)
        for (long c = 0; c < s->size; c += 2) {
            const float real = out[c], imaginary = out[c + 1], *by = turn + column * s->size + c;
            out[c] = real * by[0] - imaginary * by[1];
            out[c + 1] = real * by[1] + imaginary * by[0];
        }
}

/* One row's queries of one key head; keeps its new key and value. */
static void attend_one(
    const Shape *s, const float *mixed, const float *turn, const float *before, const long *length, float *own, long cell,
    long row, long head, float *score, float *seen) {
    const long prompt = cell / s->n_answers, size = s->size, column = s->first + row, each = s->n_query / s->n_key;
    const long n_first = length[prompt], n_second = before ? s->filled + 1 : s->filled + 1 - s->n_before;
    float *keys = own + ((prompt * s->n_key + head) * s->n_answers + cell % s->n_answers) * s->room * size;
    float *values = keys + s->n_prompts * s->n_key * s->n_answers * s->room * size;
    gathered(mixed, s->n_query + head, column, s, turn, keys + s->filled * size);
    gathered(mixed, s->n_query + s->n_key + head, column, s, 0, values + s->filled * size);
    const float *first_keys = before ? before + (prompt * s->n_key + head) * s->n_before * size : keys;
    const float *first_values = before ? first_keys + s->n_prompts * s->n_key * s->n_before * size : values;
    const float *second_keys = before ? keys : keys + s->n_before * size;
    const float *second_values = before ? values : values + s->n_before * size;
    const long n = n_first + n_second;
    for (long g = 0; g < each; g++) {
        float query[size], out[size];
        gathered(mixed, head * each + g, column, s, turn, query);
        float largest = scores_of(query, first_keys, first_values, n_first, size, score, -INFINITY);
        largest = scores_of(query, second_keys, second_values, n_second, size, score + n_first, largest);
        for (long t = n; t < n + 8; t++) score[t] = -INFINITY; /* to whole eights */
        v8 sums = {0};
        for (long t = 0; t < n; t += 8) sums += V8(score + t) = exponential(V8(score + t) - largest);
        const float total = sum_of(sums);
        for (long c = 0; c < size; c++) out[c] = 0.0f;
        add_values(score, first_values, n_first, size, out);
        add_values(score + n_first, second_values, n_second, size, out);
        float *to = seen + (head * each + g) * size * s->n + column;
        for (long c = 0; c < size; c++) to[c * s->n] = out[c] / total;
    }
}

/* What the next token of every row of a group sees.

   mixed   (Hq + 2 Hkv) C, n    queries, keys and values, by columns
   turn    n C                  cos and sin of each pair, or none
   before  2 P Hkv S C          keys and values of the prompts, or none where they lie before the answer's own
   length  P                    tokens of each prompt
   own     2 P Hkv G T C        the answers' keys and values: the new ones are put at ``filled``
   cell    R                    where in the grid each row is
   order   R                    rows, those of a prompt behind each other; run r is order[run[r]] up to order[run[r + 1]]
   score   threads most         room
   seen    Hq C, n              by columns
   Rows of one prompt meet a head's keys one after the other, while these are in the cache. */
void attend(
    const Shape *s, const float *mixed, const float *turn, const float *before, const long *length, float *own, const long *cell,
    const long *order, const long *run, float *score, float *seen, int threads) {
    PARALLEL(threads) {
        MINE(first, behind, run[s->n_runs] * s->n_key)
        for (long r = 0; r < s->n_runs; r++) {
            const long start = run[r] * s->n_key, rows = run[r + 1] - run[r], end = run[r + 1] * s->n_key;
            for (long i = first > start ? first : start; i < behind && i < end; i++) {
                const long row = order[run[r] + (i - start) % rows], head = (i - start) / rows;
                attend_one(s, mixed, turn, before, length, own, cell[row], row, head, score + THREAD * s->most, seen);
            }
        }
    }
}
