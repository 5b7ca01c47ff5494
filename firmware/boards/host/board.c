/* A process as a board: flash is memory, kept in two files; there is no watchdog, and cycles are nanoseconds. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "pe_board.h"
#include "pe_protocol.h"
#include "pe_sha256.h"
#include "pe_store.h"

enum { PATH = 4096, LINE = 1024 };

const pe_board_facts pe_board = {"host", PE_KIND_HOST, 0, 1000000000};

void (*host_send)(const uint8_t *data, uint32_t bytes);
int host_resets;

static uint32_t flash[(PE_SLOTS + 2 * PE_SLOT_STEP) / 4], arena[PE_ARENA_BYTES / 4];
static const char *folder;
static uint64_t cycles_start;

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void slot_path(char path[PATH], uint32_t slot, const char *suffix)
{
    if (snprintf(path, PATH, "%s/slot_%c.bin%s", folder, slot == 0 ? 'a' : 'b', suffix) >= PATH) {
        errno = ENAMETOOLONG;
        die(folder);
    }
}

static uint8_t *slot_start(uint32_t slot) { return (uint8_t *)flash + PE_SLOTS + slot * PE_SLOT_STEP; }

void host_open(const char *path)
{
    folder = path;
    memset(flash, 0xff, sizeof flash);
    for (uint32_t slot = 0; folder != NULL && slot < 2; slot++) {
        char name[PATH];
        slot_path(name, slot, "");
        FILE *file = fopen(name, "rb");
        if (file == NULL && errno != ENOENT)
            die(name);
        if (file != NULL) {
            const size_t bytes = fread(slot_start(slot), 1, PE_SLOT_STEP, file);
            if (bytes < PE_SLOT_STEP && ferror(file))
                die(name);
            fclose(file);
        }
    }
}

/* Replace a slot's file in one step. Blank flash at its end is left out. */
static void save(uint32_t slot)
{
    char name[PATH], fresh[PATH];
    size_t bytes = PE_SLOT_STEP;
    slot_path(name, slot, "");
    slot_path(fresh, slot, ".new");
    while (bytes > 0 && slot_start(slot)[bytes - 1] == 0xff)
        bytes--;
    FILE *file = fopen(fresh, "wb");
    if (file == NULL || fwrite(slot_start(slot), 1, bytes, file) != bytes || fflush(file) != 0 || fsync(fileno(file)) != 0)
        die(fresh);
    fclose(file);
    if (rename(fresh, name) != 0)
        die(name);
    const int directory = open(folder, O_RDONLY);
    if (directory < 0 || fsync(directory) != 0)
        die(folder);
    close(directory);
}

/* The record decides what a slot holds: only its writes reach the file, with all that was written before. */
static void written(uint32_t at)
{
    if (folder != NULL && (at - PE_SLOTS) % PE_SLOT_STEP < PE_SECTOR)
        save((at - PE_SLOTS) / PE_SLOT_STEP);
}

const uint8_t *pe_board_flash(uint32_t at) { return (const uint8_t *)flash + at; }

void pe_board_erase(uint32_t at)
{
    memset((uint8_t *)flash + at, 0xff, PE_SECTOR);
    written(at);
}

void pe_board_program(uint32_t at, const uint8_t *page)
{
    uint8_t *to = (uint8_t *)flash + at;
    for (uint32_t k = 0; k < PE_PAGE; k++)
        to[k] = (uint8_t)(to[k] & page[k]); /* as flash: bits only fall */
    written(at);
}

uint8_t *pe_board_arena(void) { return (uint8_t *)arena; }

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t pe_board_now_us(void) { return (uint32_t)(now_ns() / 1000u); }

void pe_board_start_cycles(void) { cycles_start = now_ns(); }

uint32_t pe_board_cycles(void) { return (uint32_t)(now_ns() - cycles_start); }

void pe_board_watch(uint32_t timeout_us) { (void)timeout_us; }

/* "PESIM" says that no hardware is behind it; the rest is stable for a state folder. */
void pe_board_id(uint8_t id[8])
{
    uint8_t digest[PE_SHA256_BYTES];
    const char *name = folder != NULL ? folder : "";
    pe_sha256((const uint8_t *)name, (uint32_t)strlen(name), digest);
    memcpy(id, "PESIM", 5);
    memcpy(id + 5, digest, 3);
}

void pe_board_reset(void) { host_resets = 1; }

void pe_board_service(void) {}

/* Bytes leave a frame at a time. */
void pe_board_putc(uint8_t byte)
{
    static uint8_t pending[LINE];
    static uint32_t bytes;
    pending[bytes++] = byte;
    if (byte == 0 || bytes == sizeof pending) {
        host_send(pending, bytes);
        bytes = 0;
    }
}

void pe_board_flush(void) {}
