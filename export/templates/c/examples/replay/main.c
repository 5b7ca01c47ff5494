/* Replays the policy's test vectors: those that travel in its image, then all of a file (the bundle's vectors.bin).
 * cc -std=c99 -O2 -fno-strict-aliasing -I../../src main.c ../../src/?*.c -o replay && ./replay ../../../vectors.bin */
#include <stdio.h>
#include <string.h>

#include "policy_@name@.h"

enum { N = @NAME@_OBSERVATIONS, M = @NAME@_ACTIONS, ROW = 3 + N + 2 * M };

/* A row: step flags, observation[N], raw[M], applied[M], outcome, digest of the state. */
static int reproduces(const uint32_t *row)
{
    int32_t observation[N], action[2 * M];
    memcpy(observation, row + 1, sizeof observation);
    const uint32_t outcome = @name@_tick(row[0], observation, action, action + M);
    return memcmp(action, row + 1 + N, sizeof action) == 0 && outcome == row[ROW - 2] && @name@_state() == row[ROW - 1];
}

static int replay(FILE *file)
{
    uint32_t row[ROW];
    unsigned steps = 0;
    while (fread(row, sizeof row, 1, file) == 1) {
        if (!reproduces(row)) {
            printf("step %u differs\n", steps);
            return 1;
        }
        steps++;
    }
    printf("vectors agree: %u steps\n", steps);
    return steps == 0;
}

int main(int count, char **arguments)
{
    const int32_t problem = @name@_start();
    if (problem != 0) {
        printf("the policy does not start: %d (policy_@name@.h says why)\n", (int)problem);
        return 1;
    }
    printf("vectors agree: those of the image\n");
    if (count < 2)
        return 0;
    FILE *file = fopen(arguments[1], "rb");
    if (file == NULL) {
        printf("cannot open %s\n", arguments[1]);
        return 1;
    }
    const int wrong = replay(file);
    fclose(file);
    return wrong;
}
