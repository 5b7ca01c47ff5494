/* The RP2040 as a board: UART0 on GP0 and GP1 at 115200 baud, 125 MHz, time, watchdog, the loop. */
#include "pe_board.h"

#include "pe_device.h"
#include "pe_link.h"
#include "pe_protocol.h"
#include "pe_store.h"
#include "rp2040.h"

enum { HERTZ = 125000000, BAUD = 115200 };
enum { BAUD_64THS = (HERTZ * 4 + BAUD / 2) / BAUD }; /* of the divisor: clock / (16 baud) */
enum { RING = 128, FAULT_WATCH_US = 20000 };         /* the ring is a power of two */

const pe_board_facts pe_board = {"rp2040", PE_KIND_C, 1, HERTZ};

__attribute__((section(".arena"))) static uint32_t arena[PE_ARENA_BYTES / 4];

static volatile uint8_t ring[RING];
static volatile uint32_t ring_in, ring_out; /* free-running counts */
static uint32_t cycles_start;

uint8_t *pe_board_arena(void) { return (uint8_t *)arena; }

uint32_t pe_board_now_us(void) { return REG(TIMER_RAWL); }

/* SysTick counts down in 24 bits: 134 ms, far more than a tick. */
void pe_board_start_cycles(void) { cycles_start = REG(SYSTICK_CVR); }

uint32_t pe_board_cycles(void) { return (cycles_start - REG(SYSTICK_CVR)) & SYSTICK_MAX; }

void pe_board_watch(uint32_t timeout_us)
{
    CLEAR(WATCHDOG) = timeout_us == 0 ? WATCHDOG_ENABLE : 0;
    REG(WATCHDOG_LOAD) = 2 * timeout_us; /* it counts twice a µs: erratum RP2040-E1 */
    SET(WATCHDOG) = timeout_us == 0 ? 0 : WATCHDOG_ENABLE;
}

void pe_board_reset(void)
{
    REG(PSM_WDSEL) = PSM_ALL & ~PSM_OSCILLATORS;
    SET(WATCHDOG) = WATCHDOG_TRIGGER;
    for (;;) {
    }
}

void pe_board_putc(uint8_t byte)
{
    while (REG(UART_FR) & UART_FR_TXFF)
        pe_device_poll();
    REG(UART_DR) = byte;
}

void pe_board_flush(void)
{
    while (REG(UART_FR) & UART_FR_BUSY) {
    }
}

/* Empties the UART's 32 bytes: at four of them, or when the line falls silent. A full ring loses bytes, which the frame's
 * CRC notices. */
static void uart_interrupt(void)
{
    while (!(REG(UART_FR) & UART_FR_RXFE)) {
        const uint8_t byte = (uint8_t)REG(UART_DR);
        if (ring_in - ring_out < RING)
            ring[ring_in++ % RING] = byte;
    }
}

/* The safe output, then a reset; the watchdog sees to that if even the output fails. */
static void fault(void)
{
    REG(PSM_WDSEL) = PSM_ALL & ~PSM_OSCILLATORS;
    pe_board_watch(FAULT_WATCH_US);
    pe_device_fail_safe();
    pe_board_reset();
}

static void start_peripherals(void)
{
    const uint32_t needed = RESETS_IO_BANK0 | RESETS_PADS_BANK0 | RESETS_TIMER | RESETS_UART0;
    CLEAR(RESETS) = needed;
    while ((REG(RESETS_DONE) & needed) != needed) {
    }
    REG(PSM_WDSEL) = PSM_ALL & ~PSM_OSCILLATORS;
    REG(SYSTICK_RVR) = SYSTICK_MAX;
    REG(SYSTICK_CVR) = 0;
    REG(SYSTICK_CSR) = 5; /* on, processor clock, no interrupt */
    REG(UART_IBRD) = BAUD_64THS / 64;
    REG(UART_FBRD) = BAUD_64THS % 64;
    REG(UART_LCR_H) = 3u << 5 | 1u << 4; /* 8 bits, FIFOs */
    REG(UART_IFLS) = 0;                  /* interrupt at an eighth */
    REG(UART_IMSC) = UART_RX_AND_TIMEOUT;
    REG(UART_CR) = 1u << 9 | 1u << 8 | 1u;
    REG(PAD_GPIO1) = PAD_INPUT_PULLED_UP; /* an open line is silent */
    REG(GPIO0_CTRL) = GPIO_UART;
    REG(GPIO1_CTRL) = GPIO_UART;
    REG(NVIC_ISER) = 1u << IRQ_UART0;
}

int main(void)
{
    start_peripherals();
    flash_read_id();
    pe_link_start();
    for (;;) {
        while (ring_out != ring_in)
            pe_link_byte(ring[ring_out++ % RING]);
        const int runs = pe_device_poll();
        __asm__ volatile("cpsid i"); /* a byte that comes from here on still ends the wait */
        if (!runs && ring_out == ring_in)
            __asm__ volatile("wfi");
        __asm__ volatile("cpsie i");
    }
}

typedef void handler(void);

__attribute__((section(".vectors"), used, aligned(256))) static handler *const vectors[16 + 26] = {
    [0] = stack_top, [1] = fault, [2] = fault, [3] = fault, [11] = fault, [14] = fault, [15] = fault,
    [16 + IRQ_UART0] = uart_interrupt,
};
