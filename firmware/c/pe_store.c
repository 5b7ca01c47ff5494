/* The order of writes is all that makes an install safe against a cut at any byte: first the slot's record goes, last it
 * comes back, and everything is read again before that. The active slot is never touched. */
#include "pe_store.h"

#include <stddef.h>
#include <string.h>

#include "pe_board.h"
#include "pe_crc32.h"
#include "pe_sha256.h"

static uint32_t slot_at(uint32_t slot) { return PE_SLOTS + slot * PE_SLOT_STEP; }

static uint32_t candidate_at(const pe_store *s) { return slot_at(s->active == 0); }

/* The record of a slot whose record and image are whole, or null. */
static const pe_record *whole(uint32_t slot)
{
    const pe_record *r = (const void *)pe_board_flash(slot_at(slot));
    uint8_t digest[PE_SHA256_BYTES];
    if (memcmp(r->magic, "PES1", 4) != 0 || r->crc != pe_crc32(0, r, offsetof(pe_record, crc)) || r->bytes > PE_MAX_IMAGE)
        return NULL;
    pe_sha256(pe_board_flash(slot_at(slot) + PE_SECTOR), r->bytes, digest);
    return memcmp(digest, r->digest, sizeof digest) == 0 ? r : NULL;
}

void pe_store_open(pe_store *s)
{
    s->active = PE_NO_SLOT;
    s->sequence = 0;
    for (uint32_t slot = 0; slot < 2; slot++) {
        const pe_record *r = whole(slot);
        if (r != NULL && (s->active == PE_NO_SLOT || r->sequence > s->sequence)) {
            s->active = slot;
            s->sequence = r->sequence;
        }
    }
}

const uint8_t *pe_store_image(const pe_store *s, uint32_t *bytes)
{
    const pe_record *r = (const void *)pe_board_flash(slot_at(s->active));
    *bytes = r->bytes;
    return pe_board_flash(slot_at(s->active) + PE_SECTOR);
}

const uint8_t *pe_store_candidate(const pe_store *s) { return pe_board_flash(candidate_at(s) + PE_SECTOR); }

static uint32_t erase(uint32_t at)
{
    pe_board_erase(at);
    for (const uint8_t *here = pe_board_flash(at), *end = here + PE_SECTOR; here < end; here++, at++)
        if (*here != 0xff)
            return at;
    return 0;
}

/* Program bytes within one page; the 0xff around them leave its other bytes as they are. */
static uint32_t program(uint32_t at, const uint8_t *data, uint32_t bytes)
{
    uint8_t page[PE_PAGE];
    memset(page, 0xff, sizeof page);
    memcpy(page + at % PE_PAGE, data, bytes);
    pe_board_program(at - at % PE_PAGE, page);
    for (const uint8_t *here = pe_board_flash(at), *end = here + bytes; here < end; here++, data++, at++)
        if (*here != *data)
            return at;
    return 0;
}

uint32_t pe_store_begin(const pe_store *s) { return erase(candidate_at(s)); }

uint32_t pe_store_write(const pe_store *s, uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    uint32_t at = candidate_at(s) + PE_SECTOR + offset, failed = 0;
    while (bytes > 0 && failed == 0) {
        const uint32_t room = PE_PAGE - at % PE_PAGE, part = bytes < room ? bytes : room;
        if (at % PE_SECTOR == 0)
            failed = erase(at);
        if (failed == 0)
            failed = program(at, data, part);
        at += part;
        data += part;
        bytes -= part;
    }
    return failed;
}

uint32_t pe_store_commit(pe_store *s, uint32_t bytes, const uint8_t digest[32])
{
    pe_record r = {{'P', 'E', 'S', '1'}, s->sequence + 1, bytes, {0}, 0};
    memcpy(r.digest, digest, sizeof r.digest);
    r.crc = pe_crc32(0, &r, offsetof(pe_record, crc));
    const uint32_t failed = program(candidate_at(s), (const uint8_t *)&r, sizeof r);
    if (failed == 0) {
        s->active = s->active == 0;
        s->sequence++;
    }
    return failed;
}
