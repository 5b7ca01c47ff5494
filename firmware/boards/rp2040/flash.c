/* Flash through the ROM's functions [2.8.3]. Everything here runs from RAM, interrupts included, so that they may stay on. */
#include "pe_board.h"
#include "pe_store.h"
#include "rp2040.h"

typedef void rom_call(void);
typedef void rom_erase(uint32_t at, uint32_t bytes, uint32_t block_bytes, uint32_t block_command);
typedef void rom_program(uint32_t at, const uint8_t *data, uint32_t bytes);
typedef void rom_usb_boot(uint32_t activity_pins, uint32_t disabled);
typedef uint32_t rom_lookup(const uint16_t *table, uint32_t code);

enum { READ_ID = 0x4b, ID_DUMMIES = 4, ID_BYTES = 8 };

extern const uint16_t rom_pointers[]; /* to the table of functions, of data, to the function that looks up; link.ld */

static uint8_t chip_id[ID_BYTES];

/* Emulators may lack the ROM. Without it flash is not written, which the store's read-back reports. */
static int has_rom(void) { return rom_pointers[2] != 0; }

/* The address of a ROM function by its two letters. */
static uint32_t rom(char a, char b)
{
    rom_lookup *const lookup = (rom_lookup *)(uint32_t)rom_pointers[2];
    return lookup((const uint16_t *)(uint32_t)rom_pointers[0], (uint32_t)a | (uint32_t)b << 8);
}

static void call(char a, char b) { ((rom_call *)rom(a, b))(); }

static void leave_xip(void)
{
    call('I', 'F'); /* connect_internal_flash */
    call('E', 'X'); /* flash_exit_xip */
}

/* Back to what boot2 set up: the ROM's own mode is the same 03h read, at a slower clock. */
static void enter_xip(void)
{
    call('F', 'C'); /* flash_flush_cache */
    call('C', 'X'); /* flash_enter_cmd_xip */
}

const uint8_t *pe_board_flash(uint32_t at) { return (const uint8_t *)(XIP_UNCACHED + at); }

void pe_board_erase(uint32_t at)
{
    if (!has_rom())
        return;
    leave_xip();
    ((rom_erase *)rom('R', 'E'))(at, PE_SECTOR, 1u << 16, 0xd8);
    enter_xip();
}

void pe_board_program(uint32_t at, const uint8_t *page)
{
    if (!has_rom())
        return;
    leave_xip();
    ((rom_program *)rom('R', 'P'))(at, page, PE_PAGE);
    enter_xip();
}

/* The RP2040 has no number of its own; its flash chip does. */
void flash_read_id(void)
{
    if (!has_rom())
        return;
    leave_xip();
    REG(QSPI_SS_CTRL) = (REG(QSPI_SS_CTRL) & ~QSPI_SS_FORCE) | QSPI_SS_LOW;
    for (uint32_t k = 0; k < 1 + ID_DUMMIES + ID_BYTES; k++) {
        REG(SSI_DR0) = k == 0 ? READ_ID : 0;
        while (!(REG(SSI_SR) & SSI_SR_RFNE)) {
        }
        const uint8_t byte = (uint8_t)REG(SSI_DR0);
        if (k >= 1 + ID_DUMMIES)
            chip_id[k - 1 - ID_DUMMIES] = byte;
    }
    REG(QSPI_SS_CTRL) |= QSPI_SS_FORCE; /* high: the end of the command */
    enter_xip();
}

void pe_board_id(uint8_t id[8])
{
    for (uint32_t k = 0; k < ID_BYTES; k++)
        id[k] = chip_id[k];
}

void pe_board_service(void)
{
    if (has_rom())
        ((rom_usb_boot *)rom('U', 'B'))(0, 0); /* reset_to_usb_boot */
}
