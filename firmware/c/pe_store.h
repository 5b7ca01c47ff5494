/* Two slots in flash: a new image is written beside the running one and takes over with one page write. */
#ifndef PE_STORE_H
#define PE_STORE_H

#include <stdint.h>

enum {
    PE_SECTOR = 4096,
    PE_PAGE = 256,
    PE_SLOTS = 0x40000,     /* flash offset of slot A; B follows at PE_SLOT_STEP */
    PE_SLOT_STEP = 0x40000, /* a sector for the record, then the image */
    PE_MAX_IMAGE = 192 * 1024,
    PE_ARENA_BYTES = PE_MAX_IMAGE + 4 * 4096, /* the image in RAM, then two activation buffers of the widest layer */
    PE_NO_SLOT = 2
};

/* Commit record, at the start of a slot. A slot without a good one, or whose image has another digest, is empty. */
typedef struct {
    char magic[4]; /* "PES1" */
    uint32_t sequence; /* of the install; the highest runs */
    uint32_t bytes;
    uint8_t digest[32]; /* SHA-256 of the whole image */
    uint32_t crc;       /* CRC-32 of all before it */
} pe_record;

typedef struct {
    uint32_t active;   /* 0, 1 or PE_NO_SLOT */
    uint32_t sequence; /* of the active slot, 0 without one */
} pe_store;

/* Find the slot to run. */
void pe_store_open(pe_store *s);

/* The active slot's image and its size; there is one. */
const uint8_t *pe_store_image(const pe_store *s, uint32_t *bytes);

/* An install, into the slot that is not active: begin, write from offset 0 upwards without gaps, commit.
 * Begin and write return 0 or the flash offset whose read-back differed. */
uint32_t pe_store_begin(const pe_store *s);
uint32_t pe_store_write(const pe_store *s, uint32_t offset, const uint8_t *data, uint32_t bytes);

/* The image that an install has written so far. */
const uint8_t *pe_store_candidate(const pe_store *s);

/* Make it the active one. Returns 0 or the flash offset whose read-back differed; then the old one stays. */
uint32_t pe_store_commit(pe_store *s, uint32_t bytes, const uint8_t digest[32]);

#endif
