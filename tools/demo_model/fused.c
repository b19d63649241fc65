// Fused float32 kernels for training the small transformer on a CPU, each with its gradient:
//   norm_*   out = residual + rms_norm(x) * weight          (weight per sample, residual may be absent)
//   heads_*  q, k = rotate(rms_norm(q or k) * weight)       (per head of 32, rotary position embedding)
//   gate_*   out = silu(a) * b                              (SwiGLU)
// Tensors are contiguous; shapes are written in C order. Built by fused.py.
#include <math.h>
#include <string.h>

// x, residual, out: (batch, length, width); weight: (batch, width); scale: (batch, length), kept for the gradient.
void norm_forward(const float *x, const float *weight, const float *residual, float *out, float *scale, int batch,
                  int length, int width, float eps) {
#pragma omp parallel for
    for (int b = 0; b < batch; b++) {
        const float *w = weight + (long)b * width;
        for (int n = 0; n < length; n++) {
            long row = (long)b * length + n, start = row * width;
            const float *in = x + start;
            float *y = out + start, sum = 0;
            for (int i = 0; i < width; i++) sum += in[i] * in[i];
            float r = 1.f / sqrtf(sum / width + eps);
            scale[row] = r;
            if (residual) {
                const float *e = residual + start;
                for (int i = 0; i < width; i++) y[i] = e[i] + in[i] * r * w[i];
            } else {
                for (int i = 0; i < width; i++) y[i] = in[i] * r * w[i];
            }
        }
    }
}

// grad: gradient of out; dx like x; dweight like weight. The residual's gradient is grad itself.
void norm_backward(const float *grad, const float *x, const float *weight, const float *scale, float *dx,
                   float *dweight, int batch, int length, int width) {
#pragma omp parallel for
    for (int b = 0; b < batch; b++) {
        const float *w = weight + (long)b * width;
        float *dw = dweight + (long)b * width;
        memset(dw, 0, width * sizeof(float));
        for (int n = 0; n < length; n++) {
            long row = (long)b * length + n, start = row * width;
            const float *in = x + start, *g = grad + start;
            float *d = dx + start, r = scale[row], sum = 0;
            for (int i = 0; i < width; i++) sum += g[i] * w[i] * in[i];
            float k = sum * r * r * r / width;
            for (int i = 0; i < width; i++) {
                d[i] = g[i] * w[i] * r - in[i] * k;
                dw[i] += g[i] * in[i] * r;
            }
        }
    }
}

#define HEAD 32
#define HALF (HEAD / 2)

// qkv: (batch, length, 3, heads, HEAD); weight: (2, HEAD) for q and k; cosine, sine: (length, HALF);
// out: (2, batch, heads, length, HEAD), q then k; scale: (batch, length, 2, heads), kept for the gradient.
void heads_forward(const float *qkv, const float *weight, const float *cosine, const float *sine, float *out,
                   float *scale, int batch, int length, int heads, float eps) {
#pragma omp parallel for
    for (int b = 0; b < batch; b++)
        for (int n = 0; n < length; n++)
            for (int t = 0; t < 2; t++)
                for (int h = 0; h < heads; h++) {
                    const float *in = qkv + ((((long)b * length + n) * 3 + t) * heads + h) * HEAD;
                    float *y = out + ((((long)t * batch + b) * heads + h) * length + n) * HEAD;
                    const float *w = weight + t * HEAD, *c = cosine + n * HALF, *s = sine + n * HALF;
                    float sum = 0, z[HEAD];
                    for (int i = 0; i < HEAD; i++) sum += in[i] * in[i];
                    float r = 1.f / sqrtf(sum / HEAD + eps);
                    scale[(((long)b * length + n) * 2 + t) * heads + h] = r;
                    for (int i = 0; i < HEAD; i++) z[i] = in[i] * r * w[i];
                    for (int i = 0; i < HALF; i++) {
                        y[2 * i] = z[2 * i] * c[i] - z[2 * i + 1] * s[i];
                        y[2 * i + 1] = z[2 * i] * s[i] + z[2 * i + 1] * c[i];
                    }
                }
}

// grad: gradient of out; writes the q and k parts of dqkv (like qkv); dweight: (batch, 2, HEAD).
void heads_backward(const float *grad, const float *qkv, const float *weight, const float *cosine, const float *sine,
                    const float *scale, float *dqkv, float *dweight, int batch, int length, int heads) {
#pragma omp parallel for
    for (int b = 0; b < batch; b++) {
        float *dw = dweight + (long)b * 2 * HEAD;
        memset(dw, 0, 2 * HEAD * sizeof(float));
        for (int n = 0; n < length; n++)
            for (int t = 0; t < 2; t++)
                for (int h = 0; h < heads; h++) {
                    long start = ((((long)b * length + n) * 3 + t) * heads + h) * HEAD;
                    const float *in = qkv + start, *w = weight + t * HEAD, *c = cosine + n * HALF, *s = sine + n * HALF;
                    const float *g = grad + ((((long)t * batch + b) * heads + h) * length + n) * HEAD;
                    float r = scale[(((long)b * length + n) * 2 + t) * heads + h], z[HEAD], sum = 0;
                    for (int i = 0; i < HALF; i++) {
                        z[2 * i] = g[2 * i] * c[i] + g[2 * i + 1] * s[i];
                        z[2 * i + 1] = g[2 * i + 1] * c[i] - g[2 * i] * s[i];
                    }
                    for (int i = 0; i < HEAD; i++) {
                        dw[t * HEAD + i] += z[i] * in[i] * r;
                        z[i] *= w[i];
                        sum += z[i] * in[i];
                    }
                    float k = sum * r * r * r / HEAD;
                    for (int i = 0; i < HEAD; i++) dqkv[start + i] = z[i] * r - in[i] * k;
                }
    }
}

// 1 / (1 + exp(-a)). Fast division by an infinite exponential would be NaN, so the exponent is limited.
static inline float sigmoid(float a) { return 1.f / (1.f + expf(fminf(-a, 80.f))); }

// x: (rows, 2 * width), a before b; out: (rows, width).
void gate_forward(const float *x, float *out, long rows, int width) {
#pragma omp parallel for
    for (long m = 0; m < rows; m++) {
        const float *a = x + m * 2 * width, *b = a + width;
        float *y = out + m * width;
        for (int i = 0; i < width; i++) y[i] = a[i] * sigmoid(a[i]) * b[i];
    }
}

// grad: gradient of out; dx like x.
void gate_backward(const float *grad, const float *x, float *dx, long rows, int width) {
#pragma omp parallel for
    for (long m = 0; m < rows; m++) {
        const float *a = x + m * 2 * width, *b = a + width, *g = grad + m * width;
        float *da = dx + m * 2 * width, *db = da + width;
        for (int i = 0; i < width; i++) {
            float s = sigmoid(a[i]);
            da[i] = g[i] * b[i] * s * (1.f + a[i] * (1.f - s));
            db[i] = g[i] * a[i] * s;
        }
    }
}
