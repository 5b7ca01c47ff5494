/* What a board does for the link and the store. Everything else in firmware/c is the same on every board. */
#ifndef PE_BOARD_H
#define PE_BOARD_H

#include <stdint.h>

typedef struct {
    char target[12]; /* zero-padded */
    uint8_t kind;    /* PE_KIND_… */
    uint8_t has_service;
    uint32_t clock_hz; /* of pe_board_cycles */
} pe_board_facts;

extern const pe_board_facts pe_board;

/* The line. putc may wait, and then calls pe_device_poll so that a running policy does not. */
void pe_board_putc(uint8_t byte);
void pe_board_flush(void); /* returns when the last byte has left */

/* Time. Cycles count from the last start_cycles and need not reach further than one tick. */
uint32_t pe_board_now_us(void);
void pe_board_start_cycles(void);
uint32_t pe_board_cycles(void);

/* Reset the chip unless called again within this time; 0 stops the watch. */
void pe_board_watch(uint32_t timeout_us);

void pe_board_id(uint8_t id[8]);
void pe_board_reset(void);   /* on a microcontroller these two do not return */
void pe_board_service(void); /* called only where has_service is set */

/* Flash, by offset. `view` is never stale; erase takes a sector, program a page (pe_store.h), aligned. */
const uint8_t *pe_board_flash(uint32_t at);
void pe_board_erase(uint32_t at);
void pe_board_program(uint32_t at, const uint8_t *page);

/* RAM for one image and its activations: PE_ARENA_BYTES, 4-aligned. */
uint8_t *pe_board_arena(void);

/* The user's: sensors and actuators (user_io.c). `write` gets nothing but what the shield applied, or the safe output. */
int pe_board_open_driver(void);
uint32_t pe_board_read(int32_t *observation);
void pe_board_write(const int32_t *action);

#endif
