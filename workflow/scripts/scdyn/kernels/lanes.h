/* Vectors of LANES floats; a compiler whose machine has shorter ones splits them itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int ivec __attribute__((vector_size(4 * LANES)));

static inline vec broadcast(float x) { return x - (vec){0}; }

static inline vec load(const float *x) {
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline void store(float *x, vec v) { memcpy(x, &v, sizeof v); }

/* Lane by lane, a where the condition holds and b elsewhere. */
static inline vec choose(ivec condition, vec a, vec b) {
    return (vec)((condition & (ivec)a) | (~condition & (ivec)b));
}

/* Halves of a vector, of which sums and maxima over the lanes are made in few steps. */
typedef float half_vec __attribute__((vector_size(2 * LANES)));
typedef union {
    vec whole;
    half_vec half[2];
    float lane[LANES];
} halves;

static inline float sum_lanes(vec x) {
    halves parts = {.whole = x};
    parts.half[0] += parts.half[1];
    float total = 0;
    for (int i = 0; i < 2; i++)
        total += (parts.lane[i] + parts.lane[i + 2]) + (parts.lane[i + 4] + parts.lane[i + 6]);
    return total;
}

static inline float max_lanes(vec x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* exp for x <= 0 to about two units in the last place; 0 below -87 (Cephes, expf). */
static inline vec exp_lanes(vec x) {
    ivec normal = x > -87.33654f;
    /* Adding 1.5 x 2^23 rounds to the nearest integer, which then stands in the low bits. */
    const vec shift = broadcast(12582912.0f);
    vec n = x * 1.44269504f + shift;
    ivec power = (ivec)n << 23;
    n -= shift;
    x = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec y = broadcast(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    return (vec)(((ivec)y + power) & normal);
}

static inline float *buffer(long n_floats) { return aligned_alloc(64, sizeof(float) * n_floats); }
