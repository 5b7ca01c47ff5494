/* From the vectors in flash to main in RAM. Runs from flash: it may call nothing that it has not copied yet. */
#include "rp2040.h"

#define BOOT __attribute__((section(".boot"), noinline))

extern uint32_t code_start, code_load, data_end, bss_start, bss_end;

/* 125 MHz from the 12 MHz crystal; a µs tick for timer and watchdog. */
static BOOT void start_clocks(void)
{
    REG(XOSC_STARTUP) = 47 * 64; /* 64 ms: some boards' crystals are slow [2.16.3] */
    REG(XOSC) = XOSC_ON;
    while (!(REG(XOSC_STATUS) & XOSC_STABLE)) {
    }
    REG(CLK_REF_CTRL) = 2; /* the crystal */
    while (REG(CLK_REF_SELECTED) != 1u << 2) {
    }
    REG(CLK_SYS_CTRL) = 0; /* clk_ref, while the PLL settles */
    while (REG(CLK_SYS_SELECTED) != 1u) {
    }

    CLEAR(RESETS) = RESETS_PLL_SYS;
    while (!(REG(RESETS_DONE) & RESETS_PLL_SYS)) {
    }
    REG(PLL_SYS) = 1;
    REG(PLL_FBDIV) = 125; /* 1500 MHz, divided by 6 and by 2 */
    CLEAR(PLL_PWR) = PLL_PWR_CORE;
    while (!(REG(PLL_SYS) & PLL_LOCK)) {
    }
    REG(PLL_PRIM) = 6u << 16 | 2u << 12;
    CLEAR(PLL_PWR) = PLL_PWR_POSTDIV;
    REG(CLK_SYS_CTRL) = 1; /* auxiliary source 0: the PLL */
    while (REG(CLK_SYS_SELECTED) != 1u << 1) {
    }
    REG(CLK_PERI_CTRL) = CLK_PERI_ENABLE;
    REG(WATCHDOG_TICK) = WATCHDOG_TICK_ENABLE | 12u;
}

static BOOT void reset(void)
{
    start_clocks();
    const volatile uint32_t *from = &code_load; /* volatile: no memcpy, which is not there yet */
    for (uint32_t *to = &code_start; to < &data_end;)
        *to++ = *from++;
    for (volatile uint32_t *to = &bss_start; to < &bss_end;)
        *to++ = 0;
    REG(VTOR) = (uint32_t)&code_start;
    int (*const run)(void) = main; /* too far for a plain call */
    run();
}

/* A fault before `run`. The core leaves the fault only by a reset: started over here, it would take no interrupt. */
static BOOT void fault(void)
{
    REG(PSM_WDSEL) = PSM_ALL & ~PSM_OSCILLATORS;
    SET(WATCHDOG) = WATCHDOG_TRIGGER;
    for (;;) {
    }
}

/* What boot2 reads. */
__attribute__((section(".boot_vectors"), used)) static void (*const boot_vectors[])(void) = {stack_top, reset, fault, fault};
