/* Attention of many queries to a few latents that are keys and values at once:
 * softmax(q k' / sqrt(D)) k for float32, forward and backward, without a matrix of scores.
 *
 * A cell's latents fit the first-level cache, so GROUP queries at a time meet all of them
 * there and the softmax needs no second look. LANES latents lie along a vector. OpenMP shares
 * parts of the queries among threads; how many parts does not depend on the threads, so neither
 * do the results. Compile with -DHEAD_WIDTH=D.
 */
#include "lanes.h"

#define D HEAD_WIDTH
#define GROUP 8

typedef vec keys_block[D];

/* Latents (n, D) to blocks of lanes; those that pad the last block are zero. */
static void load_latents(const float *latents, int n, int n_blocks, keys_block *keys) {
    memset(keys, 0, n_blocks * sizeof *keys);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < D; d++) keys[i / LANES][d][i % LANES] = latents[i * D + d];
}

/* What is added to the scores of the last block: minus infinity for lanes that pad it. */
static vec padding(int n, int n_blocks) {
    vec bias = {0};
    for (int i = 0; i < LANES; i++)
        if ((n_blocks - 1) * LANES + i >= n) bias[i] = -INFINITY;
    return bias;
}

/* sums (GROUP, D) of keys by weights (blocks, GROUP). Two queries at a time fill the registers. */
static inline void weigh(const keys_block *keys, vec (*weights)[GROUP], int n_blocks,
                         float (*sums)[D]) {
    for (int r = 0; r < GROUP; r += 2) {
        vec first[D] = {0}, second[D] = {0};
        for (int b = 0; b < n_blocks; b++)
            for (int d = 0; d < D; d++) {
                first[d] += weights[b][r] * keys[b][d];
                second[d] += weights[b][r + 1] * keys[b][d];
            }
        for (int d = 0; d < D; d++) {
            sums[r][d] = sum_lanes(first[d]);
            sums[r + 1][d] = sum_lanes(second[d]);
        }
    }
}

/* queries, output (cells, n_queries, D); latents (cells, n_latents, D);
 * logsumexp (cells, n_queries). */
void attend_forward(const float *queries, const float *latents, float *output, float *logsumexp,
                    long n_cells, long n_queries, long n_latents, long n_parts, long n_threads) {
    int n_blocks = (n_latents + LANES - 1) / LANES;
    float scale = 1 / sqrtf(D);
    vec last = padding(n_latents, n_blocks);
#pragma omp parallel num_threads(n_threads)
    {
        keys_block *keys = aligned_alloc(64, n_blocks * sizeof *keys);
        vec(*weights)[GROUP] = aligned_alloc(64, n_blocks * sizeof *weights);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < n_cells * n_parts; task++) {
            long cell = task / n_parts, part = task % n_parts;
            long end = cell * n_queries + n_queries * (part + 1) / n_parts;
            load_latents(latents + cell * n_latents * D, n_latents, n_blocks, keys);
            for (long i = cell * n_queries + n_queries * part / n_parts; i < end; i += GROUP) {
                int n = end - i < GROUP ? end - i : GROUP;
                float q[GROUP][D] = {0}, sums[GROUP][D], top[GROUP];
                vec highest[GROUP], total[GROUP] = {0};
                for (int r = 0; r < GROUP; r++) highest[r] = broadcast(-INFINITY);
                for (int r = 0; r < n; r++)
                    for (int d = 0; d < D; d++) q[r][d] = queries[(i + r) * D + d] * scale;
                for (int b = 0; b < n_blocks; b++)
                    for (int r = 0; r < GROUP; r++) {
                        vec s = b == n_blocks - 1 ? last : (vec){0};
                        for (int d = 0; d < D; d++) s += q[r][d] * keys[b][d];
                        weights[b][r] = s;
                        highest[r] = choose(s > highest[r], s, highest[r]);
                    }
                for (int r = 0; r < GROUP; r++) top[r] = max_lanes(highest[r]);
                for (int b = 0; b < n_blocks; b++)
                    for (int r = 0; r < GROUP; r++) {
                        weights[b][r] = exp_lanes(weights[b][r] - top[r]);
                        total[r] += weights[b][r];
                    }
                weigh(keys, weights, n_blocks, sums);
                for (int r = 0; r < n; r++) {
                    float all = sum_lanes(total[r]), share = 1 / all;
                    for (int d = 0; d < D; d++) output[(i + r) * D + d] = sums[r][d] * share;
                    logsumexp[i + r] = top[r] + logf(all);
                }
            }
        }
        free(keys), free(weights);
    }
}

/* grad_output, grad_queries as queries; grad_latents (cells, n_parts, n_latents, D), whose
 * parts are to be summed. */
void attend_backward(const float *queries, const float *latents, const float *output,
                     const float *logsumexp, const float *grad_output, float *grad_queries,
                     float *grad_latents, long n_cells, long n_queries, long n_latents, long n_parts,
                     long n_threads) {
    int n_blocks = (n_latents + LANES - 1) / LANES;
    float scale = 1 / sqrtf(D);
    vec last = padding(n_latents, n_blocks);
#pragma omp parallel num_threads(n_threads)
    {
        keys_block *keys = aligned_alloc(64, n_blocks * sizeof *keys);
        keys_block *grad_keys = aligned_alloc(64, n_blocks * sizeof *keys);
        vec(*changes)[GROUP] = aligned_alloc(64, n_blocks * sizeof *changes);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < n_cells * n_parts; task++) {
            long cell = task / n_parts, part = task % n_parts;
            long end = cell * n_queries + n_queries * (part + 1) / n_parts;
            load_latents(latents + cell * n_latents * D, n_latents, n_blocks, keys);
            memset(grad_keys, 0, n_blocks * sizeof *keys);
            for (long i = cell * n_queries + n_queries * part / n_parts; i < end; i += GROUP) {
                int n = end - i < GROUP ? end - i : GROUP;
                /* Rows beyond n stay zero and add nothing. */
                float q[GROUP][D] = {0}, g[GROUP][D] = {0}, sums[GROUP][D];
                float inner[GROUP] = {0}, normaliser[GROUP] = {0};
                for (int r = 0; r < n; r++) {
                    normaliser[r] = logsumexp[i + r];
                    for (int d = 0; d < D; d++) {
                        q[r][d] = queries[(i + r) * D + d] * scale;
                        g[r][d] = grad_output[(i + r) * D + d];
                        inner[r] += g[r][d] * output[(i + r) * D + d];
                    }
                }
                for (int b = 0; b < n_blocks; b++) {
                    vec bias = b == n_blocks - 1 ? last : (vec){0}, p[GROUP];
                    for (int r = 0; r < GROUP; r++) {
                        vec s = bias - normaliser[r], t = broadcast(-inner[r]);
                        for (int d = 0; d < D; d++) s += q[r][d] * keys[b][d];
                        for (int d = 0; d < D; d++) t += g[r][d] * keys[b][d];
                        p[r] = exp_lanes(s);
                        changes[b][r] = t * p[r];
                    }
                    for (int d = 0; d < D; d++)
                        for (int r = 0; r < GROUP; r++)
                            grad_keys[b][d] += changes[b][r] * q[r][d] + p[r] * g[r][d];
                }
                weigh(keys, changes, n_blocks, sums);
                for (int r = 0; r < n; r++)
                    for (int d = 0; d < D; d++) grad_queries[(i + r) * D + d] = sums[r][d] * scale;
            }
            float *out = grad_latents + task * n_latents * D;
            for (int j = 0; j < n_latents; j++)
                for (int d = 0; d < D; d++) out[j * D + d] = grad_keys[j / LANES][d][j % LANES];
        }
        free(keys), free(grad_keys), free(changes);
    }
}
