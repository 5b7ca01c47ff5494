/* Damaged images and damaged frames, for a build with sanitizers: `pe_fuzz IMAGE SEED ROUNDS`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "pe_board.h"
#include "pe_crc32.h"
#include "pe_engine.h"
#include "pe_device.h"
#include "pe_link.h"
#include "pe_ops.h"
#include "pe_sha256.h"
#include "pe_store.h"

static uint32_t state;

static uint32_t random32(void) /* xorshift32 */
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static uint32_t below(uint32_t end) { return random32() % end; }

static void ignore(const uint8_t *data, uint32_t bytes) { (void)data, (void)bytes; }

/* Change a few bytes, words or the length; mostly near the places that hold numbers. */
static void damage(uint8_t *data, uint32_t bytes)
{
    static const uint32_t words[] = {0, 1, 3, 0x7f, 0x80, 0xff, 0xffff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff, 0x40000000, 0x3fffffff};
    for (uint32_t k = 1 + below(6); k > 0; k--) {
        const uint32_t span = below(3) == 0 ? bytes : bytes < 600 ? bytes : 600;
        uint8_t *at = data + below(span - 3);
        const uint32_t word = below(2) ? words[below(sizeof words / sizeof *words)] : random32();
        memcpy(at, &word, 1 + below(4));
    }
}

/* Images that pe_open accepts must run, whatever they do. */
static uint32_t fuzz_image(const uint8_t *image, uint32_t bytes)
{
    const uint32_t size = below(8) == 0 ? below(bytes + 1) : bytes;
    uint8_t *copy = malloc(bytes + 4); /* of its own, so that reads beyond it are seen */
    pe_policy p;
    uint32_t accepted = 0;
    if (copy == NULL)
        exit(1);
    memcpy(copy, image, bytes);
    damage(copy, bytes);
    if (size != bytes || below(4) == 0)
        copy = realloc(copy, size < 4 ? 4 : size);
    if (copy != NULL && pe_open(&p, copy, size) == PE_OK) {
        int32_t observation[PE_MAX_OBSERVATIONS], raw[PE_MAX_ACTIONS], applied[PE_MAX_ACTIONS];
        p.scratch = malloc(pe_scratch_bytes(&p) + 1u);
        pe_reset(&p);
        for (uint32_t k = 0; k < 8; k++) {
            for (uint32_t i = 0; i < p.image->n; i++)
                observation[i] = (int32_t)random32() >> below(31);
            pe_tick(&p, below(8), observation, raw, applied);
            for (uint32_t j = 0; j < p.image->m; j++)
                if (applied[j] < p.action[j].low || applied[j] > p.action[j].high)
                    abort();
        }
        pe_self_test(&p);
        pe_state_digest(&p);
        free(p.scratch);
        accepted = 1;
    }
    free(copy);
    return accepted;
}

static void send_frame(const uint8_t *data, uint32_t bytes)
{
    uint32_t at = 0, run;
    do {
        for (run = 0; run < 254 && at + run < bytes && data[at + run] != 0;)
            run++;
        pe_link_byte((uint8_t)(run + 1));
        for (uint32_t k = 0; k < run; k++)
            pe_link_byte(data[at + k]);
        at += run + (run < 254);
    } while (at <= bytes && !(run == 254 && at == bytes));
    pe_link_byte(0);
}

/* A frame whose CRC is right, so that the handlers see what it holds. */
static void request(uint8_t type, const void *payload, uint32_t bytes)
{
    static uint8_t sequence;
    uint8_t frame[2 + 400 + 4];
    frame[0] = type;
    frame[1] = sequence++;
    memcpy(frame + 2, payload, bytes);
    const uint32_t crc = pe_crc32(0, frame, 2 + bytes);
    memcpy(frame + 2 + bytes, &crc, 4);
    send_frame(frame, bytes + 6);
}

/* Install an image over the link; a damaged one gets a digest that fits, so that pe_open is what must refuse it. */
static void install(uint8_t *image, uint32_t bytes)
{
    uint8_t payload[4 + PE_INSTALL_CHUNK];
    pe_sha256(image, bytes - PE_TRAILER, image + bytes - PE_TRAILER);
    memcpy(payload, &bytes, 4);
    pe_sha256(image, bytes, payload + 4);
    request(PE_INSTALL_BEGIN, payload, 36);
    for (uint32_t at = 0; at < bytes;) {
        const uint32_t left = bytes - at, room = 1 + below(PE_INSTALL_CHUNK), part = left < room ? left : room;
        memcpy(payload, &at, 4);
        memcpy(payload + 4, image + at, part);
        request(PE_INSTALL_DATA, payload, 4 + part);
        at += part;
    }
    request(PE_INSTALL_COMMIT, payload, 0);
}

static void fuzz_link(const uint8_t *image, uint32_t bytes)
{
    uint8_t payload[400];
    for (uint32_t k = 0; k < 40; k++) {
        for (uint32_t i = 0; i < sizeof payload; i++)
            payload[i] = (uint8_t)(below(3) ? random32() : 0);
        const uint32_t length = below(3) ? below(sizeof payload) : below(45);
        if (below(4) == 0) {
            for (uint32_t i = 0; i < length; i++)
                pe_link_byte(payload[i]);
        } else {
            payload[0] = (uint8_t)below(4);
            request((uint8_t)below(16), payload, length);
        }
        pe_device_poll();
    }
    if (below(4) == 0) {
        uint8_t *copy = malloc(bytes);
        if (copy == NULL)
            exit(1);
        memcpy(copy, image, bytes);
        request(PE_DISARM, payload, 0);
        if (below(2))
            damage(copy, bytes);
        install(copy, bytes);
        free(copy);
    }
    if (host_resets) {
        host_resets = 0;
        pe_link_start();
    }
}

int main(int argc, char **argv)
{
    static uint32_t image[PE_MAX_IMAGE / 4];
    FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: %s IMAGE SEED ROUNDS\n", argv[0]);
        return 2;
    }
    const uint32_t bytes = (uint32_t)fread(image, 1, sizeof image, file);
    fclose(file);
    state = 2u * (uint32_t)strtoul(argv[2], NULL, 10) + 1u;
    host_send = ignore;
    host_open(NULL);
    pe_link_start();
    uint32_t accepted = 0;
    for (unsigned long k = strtoul(argv[3], NULL, 10); k > 0; k--) {
        accepted += fuzz_image((const uint8_t *)image, bytes);
        if (k % 16 == 0)
            fuzz_link((const uint8_t *)image, bytes);
    }
    printf("accepted %u\n", (unsigned)accepted);
    return 0;
}
