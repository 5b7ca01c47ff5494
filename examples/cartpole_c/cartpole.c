/* CartPole in C through pe_env.h: the same dynamics as puffer_edge/envs/cartpole.py, stepped by the native trainer without a copy.
 *
 *   cc -O3 -fPIC -shared -I$(python -c 'import puffer_edge.envs as e; print(*e.__path__)') cartpole.c -o libcartpole.so -lm
 */
#include <math.h>
#include <string.h>

#include "pe_env.h"

static double uniform(uint32_t draw, uint32_t environment, uint64_t step, const uint32_t *key)
{
    uint32_t c0 = draw, c1 = environment, c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32), k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b, c3 = (uint32_t)a, c0 = n0, c2 = n2, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return ((double)(c0 >> 5) * 67108864.0 + (double)(c1 >> 6)) / 9007199254740992.0;
}

static void reset_many(int64_t n, int64_t first, const uint32_t *key, const uint64_t *step, const uint8_t *mask, const double *parameters, double *state,
                       double *observation)
{
    (void)parameters;
    for (int64_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < 4 && mask[i]; k++)
            state[4 * i + k] = observation[4 * i + k] = 0.1 * uniform(0x80000000u + k, (uint32_t)(first + i), step[i], key) - 0.05;
}

static void step_many(int64_t n, int64_t first, const uint32_t *key, const uint64_t *step, const double *parameters, const double *action, double *state,
                      double *observation, double *reward, double *cost, uint8_t *terminated, uint8_t *alive)
{
    (void)first, (void)key, (void)step, (void)parameters;
    for (int64_t i = 0; i < n; i++) {
        double *s = state + 4 * i, cosine = cos(s[2]), sine = sin(s[2]);
        double pull = (action[i] + 0.05 * (s[3] * s[3]) * sine) / 1.1;
        double angle_acc = (9.8 * sine - cosine * pull) / (0.5 * (4.0 / 3.0 - 0.1 * (cosine * cosine) / 1.1));
        double x_acc = pull - 0.05 * angle_acc * cosine / 1.1;
        s[0] += 0.02 * s[1];
        s[1] += 0.02 * x_acc;
        s[2] += 0.02 * s[3];
        s[3] += 0.02 * angle_acc;
        memcpy(observation + 4 * i, s, 4 * sizeof *s);
        reward[i] = 1;
        cost[i] = fabs(s[0]) > 2.0 || fabs(s[2]) > 0.15;
        terminated[i] = fabs(s[0]) > 2.4 || fabs(s[2]) > 12 * 2 * 3.141592653589793 / 360;
        alive[i] = 1;
    }
}

/* What a loader asks for by name. */
const pe_env pe_environment = {PE_ENV_VERSION, sizeof(pe_env), 1, 4, 4, 1, 0, 500, reset_many, step_many};
