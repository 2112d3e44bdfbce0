/* gelu(x W1' + b1) W2' + b2 for float32, forward and backward, without the hidden layer in memory.
 *
 * Rows are taken in blocks whose hidden layer stays in the second-level cache; the backward
 * pass computes it again. Sums over rows are taken by parts that do not depend on the number
 * of threads, so neither do the results.
 */
#include "lanes.h"

#define BLOCK 64
#ifdef __AVX512F__
#define TILE 8
#else
#define TILE 2
#endif

/* The normal distribution's cumulative and density (Abramowitz and Stegun 26.2.17, 7.5e-8). */
static inline void normal(vec x, vec *cumulative, vec *density) {
    vec size = (vec)((ivec)x & 0x7fffffff);
    vec d = exp_lanes(-0.5f * x * x) * 0.39894228f;
    vec t = 1.0f / (1.0f + 0.2316419f * size);
    vec y = broadcast(1.330274429f);
    y = y * t - 1.821255978f;
    y = y * t + 1.781477937f;
    y = y * t - 0.356563782f;
    y = y * t + 0.319381530f;
    vec tail = d * y * t;
    *cumulative = choose(x < 0, tail, 1.0f - tail);
    *density = d;
}

/* Vectors of a panel: what a tile of the product is wide. */
static int panel_width(int n) { return n % (3 * LANES) == 0 ? 3 : n % (2 * LANES) == 0 ? 2 : 1; }

/* c (TILE, width x LANES) = or += sum over k of a[r, k] b[k]. */
static inline __attribute__((always_inline)) void tile(const float *a, long a_row, long a_k,
                                                       const float *b, long b_k, int n_k, float *c,
                                                       long c_row, const int width, int add) {
    vec sums[TILE][3];
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < width; v++)
            sums[r][v] = add ? load(c + r * c_row + v * LANES) : (vec){0};
    for (int k = 0; k < n_k; k++) {
        vec row[3];
        for (int v = 0; v < width; v++) row[v] = load(b + k * b_k + v * LANES);
        for (int r = 0; r < TILE; r++)
            for (int v = 0; v < width; v++) sums[r][v] += a[r * a_row + k * a_k] * row[v];
    }
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < width; v++) store(c + r * c_row + v * LANES, sums[r][v]);
}

/* c (m, n) = or += a (m, n_k) b (n_k, n); b's panels are panel_step apart, their rows b_k. */
static void product(const float *a, long a_row, long a_k, const float *b, long b_k, long panel_step,
                    float *c, long c_row, int m, int n, int n_k, int add) {
    int width = panel_width(n);
    for (int j = 0; j < n / (width * LANES); j++)
        for (int i = 0; i < m; i += TILE) {
            const float *from = a + i * a_row, *panel = b + j * panel_step;
            float *to = c + i * c_row + j * width * LANES;
            if (width == 3) tile(from, a_row, a_k, panel, b_k, n_k, to, c_row, 3, add);
            if (width == 2) tile(from, a_row, a_k, panel, b_k, n_k, to, c_row, 2, add);
            if (width == 1) tile(from, a_row, a_k, panel, b_k, n_k, to, c_row, 1, add);
        }
}

/* b (n_k, n), with strides, to panels that are each contiguous. */
static float *pack(const float *b, long b_k, long b_n, int n_k, int n) {
    int wide = panel_width(n) * LANES;
    float *packed = buffer((long)n_k * n);
    for (int j = 0; j < n; j++)
        for (int k = 0; k < n_k; k++)
            packed[(j / wide) * n_k * wide + k * wide + j % wide] = b[k * b_k + j * b_n];
    return packed;
}

/* c = a b for one block and packed b. */
static void block_product(const float *a, const float *packed, float *c, int n, int n_k) {
    int wide = panel_width(n) * LANES;
    product(a, n_k, 1, packed, wide, (long)n_k * wide, c, n, BLOCK, n, n_k, 0);
}

static void load_block(const float *x, long row, long end, int width, float *block) {
    long n = end - row < BLOCK ? end - row : BLOCK;
    memcpy(block, x + row * width, sizeof(float) * n * width);
    memset(block + n * width, 0, sizeof(float) * (BLOCK - n) * width);
}

static void store_block(const float *block, long row, long end, int width, float *x) {
    long n = end - row < BLOCK ? end - row : BLOCK;
    memcpy(x + row * width, block, sizeof(float) * n * width);
}

/* x, y (rows, width); w1 (hidden, width); w2 (width, hidden). */
void feed_forward(const float *x, const float *w1, const float *b1, const float *w2,
                  const float *b2, float *y, long n_rows, long width, long hidden, long n_threads) {
    float *up = pack(w1, 1, width, width, hidden), *down = pack(w2, 1, hidden, hidden, width);
#pragma omp parallel num_threads(n_threads)
    {
        float *xs = buffer(BLOCK * width), *h = buffer(BLOCK * hidden), *ys = buffer(BLOCK * width);
#pragma omp for schedule(dynamic)
        for (long row = 0; row < n_rows; row += BLOCK) {
            load_block(x, row, n_rows, width, xs);
            block_product(xs, up, h, hidden, width);
            for (int r = 0; r < BLOCK; r++)
                for (int j = 0; j < hidden; j += LANES) {
                    vec value = load(h + r * hidden + j) + load(b1 + j), cumulative, density;
                    normal(value, &cumulative, &density);
                    store(h + r * hidden + j, value * cumulative);
                }
            block_product(h, down, ys, width, hidden);
            for (int r = 0; r < BLOCK; r++)
                for (int j = 0; j < width; j += LANES)
                    store(ys + r * width + j, load(ys + r * width + j) + load(b2 + j));
            store_block(ys, row, n_rows, width, y);
        }
        free(xs), free(h), free(ys);
    }
    free(up), free(down);
}

/* grad_w1, grad_w2t (parts, hidden, width) and grad_b1 (parts, hidden), to be summed over parts;
 * the gradient of w2 comes transposed. All zero at the start, or all null if not wanted. */
void feed_forward_backward(const float *x, const float *w1, const float *b1, const float *w2,
                           const float *grad_y, float *grad_x, float *grad_w1, float *grad_b1,
                           float *grad_w2t, long n_rows, long width, long hidden, long n_parts,
                           long n_threads) {
    float *up = pack(w1, 1, width, width, hidden), *down_t = pack(w2, hidden, 1, width, hidden);
    float *up_t = pack(w1, width, 1, hidden, width);
    long n_blocks = (n_rows + BLOCK - 1) / BLOCK;
    int wide = panel_width(width) * LANES;
#pragma omp parallel num_threads(n_threads)
    {
        float *xs = buffer(BLOCK * width), *gs = buffer(BLOCK * width);
        float *h = buffer(BLOCK * hidden), *g = buffer(BLOCK * hidden);
#pragma omp for schedule(dynamic)
        for (int part = 0; part < n_parts; part++) {
            long weights = (long)part * hidden * width;
            long end = n_blocks * (part + 1) / n_parts;
            for (long block = n_blocks * part / n_parts; block < end; block++) {
                load_block(x, block * BLOCK, n_rows, width, xs);
                load_block(grad_y, block * BLOCK, n_rows, width, gs);
                block_product(xs, up, h, hidden, width);
                block_product(gs, down_t, g, hidden, width);
                for (int r = 0; r < BLOCK; r++)
                    for (int j = 0; j < hidden; j += LANES) {
                        float *at = h + r * hidden + j, *grad = g + r * hidden + j;
                        vec value = load(at) + load(b1 + j), cumulative, density;
                        normal(value, &cumulative, &density);
                        store(at, value * cumulative);
                        vec change = load(grad) * (cumulative + value * density);
                        store(grad, change);
                    }
                if (grad_w1) {
                    float *gb1 = grad_b1 + part * hidden;
                    for (int r = 0; r < BLOCK; r++)
                        for (int j = 0; j < hidden; j += LANES)
                            store(gb1 + j, load(gb1 + j) + load(g + r * hidden + j));
                    product(g, 1, hidden, xs, width, wide, grad_w1 + weights, width, hidden, width,
                            BLOCK, 1);
                    product(h, 1, hidden, gs, width, wide, grad_w2t + weights, width, hidden,
                            width, BLOCK, 1);
                }
                block_product(g, up_t, xs, width, hidden);
                store_block(xs, block * BLOCK, n_rows, width, grad_x);
            }
        }
        free(xs), free(gs), free(h), free(g);
    }
    free(up), free(down_t), free(up_t);
}
