/* The registers that this firmware touches (RP2040 datasheet; section numbers in brackets). */
#ifndef RP2040_H
#define RP2040_H

#include <stdint.h>

/* The end of the stack, as the vector tables want it: an address, not a function (link.ld). */
extern void stack_top(void);

int main(void);
void flash_read_id(void); /* once at boot, for pe_board_id */

#define REG(address) (*(volatile uint32_t *)(address))
#define SET(address) REG((address) + 0x2000u) /* writing ones sets these bits [2.1.2] */
#define CLEAR(address) REG((address) + 0x3000u)

#define XIP_UNCACHED 0x13000000u /* flash, past the cache [2.6.3] */

#define SSI 0x18000000u /* [4.10.13] */
#define SSI_SR (SSI + 0x28u)
#define SSI_SR_RFNE (1u << 3)
#define SSI_DR0 (SSI + 0x60u)
#define QSPI_SS_CTRL 0x4001800cu /* [2.19.6.2] */
#define QSPI_SS_FORCE (3u << 8)
#define QSPI_SS_LOW (2u << 8)

#define CLOCKS 0x40008000u /* [2.15.7] */
#define CLK_REF_CTRL (CLOCKS + 0x30u)
#define CLK_REF_SELECTED (CLOCKS + 0x38u)
#define CLK_SYS_CTRL (CLOCKS + 0x3cu)
#define CLK_SYS_SELECTED (CLOCKS + 0x44u)
#define CLK_PERI_CTRL (CLOCKS + 0x48u)
#define CLK_PERI_ENABLE (1u << 11)

#define RESETS 0x4000c000u /* [2.14.3] */
#define RESETS_DONE (RESETS + 0x08u)
#define RESETS_IO_BANK0 (1u << 5)
#define RESETS_PADS_BANK0 (1u << 8)
#define RESETS_PLL_SYS (1u << 12)
#define RESETS_TIMER (1u << 21)
#define RESETS_UART0 (1u << 22)

#define PSM_WDSEL 0x40010008u /* [2.13.5] */
#define PSM_ALL 0x1ffffu
#define PSM_OSCILLATORS 3u

#define GPIO0_CTRL 0x40014004u /* [2.19.6.1] */
#define GPIO1_CTRL 0x4001400cu
#define GPIO_UART 2u
#define PAD_GPIO1 0x4001c008u /* [2.19.6.3] */
#define PAD_INPUT_PULLED_UP 0x5au

#define XOSC 0x40024000u /* [2.16.7] */
#define XOSC_STATUS (XOSC + 0x04u)
#define XOSC_STABLE (1u << 31)
#define XOSC_STARTUP (XOSC + 0x0cu)
#define XOSC_ON 0xfabaa0u

#define PLL_SYS 0x40028000u /* [2.18.4] */
#define PLL_LOCK (1u << 31)
#define PLL_PWR (PLL_SYS + 0x04u)
#define PLL_PWR_CORE ((1u << 5) | 1u)
#define PLL_PWR_POSTDIV (1u << 3)
#define PLL_FBDIV (PLL_SYS + 0x08u)
#define PLL_PRIM (PLL_SYS + 0x0cu)

#define UART0 0x40034000u /* [4.2.8] */
#define UART_DR UART0
#define UART_FR (UART0 + 0x18u)
#define UART_FR_BUSY (1u << 3)
#define UART_FR_RXFE (1u << 4)
#define UART_FR_TXFF (1u << 5)
#define UART_IBRD (UART0 + 0x24u)
#define UART_FBRD (UART0 + 0x28u)
#define UART_LCR_H (UART0 + 0x2cu)
#define UART_CR (UART0 + 0x30u)
#define UART_IFLS (UART0 + 0x34u)
#define UART_IMSC (UART0 + 0x38u)
#define UART_RX_AND_TIMEOUT ((1u << 4) | (1u << 6))

#define TIMER_RAWL 0x40054028u /* [4.6.5] */

#define WATCHDOG 0x40058000u /* [4.7.6] */
#define WATCHDOG_TRIGGER (1u << 31)
#define WATCHDOG_ENABLE (1u << 30)
#define WATCHDOG_LOAD (WATCHDOG + 0x04u)
#define WATCHDOG_TICK (WATCHDOG + 0x2cu)
#define WATCHDOG_TICK_ENABLE (1u << 9)

#define SYSTICK_CSR 0xe000e010u /* [2.4.8] */
#define SYSTICK_RVR 0xe000e014u
#define SYSTICK_CVR 0xe000e018u
#define SYSTICK_MAX 0xffffffu
#define NVIC_ISER 0xe000e100u
#define VTOR 0xe000ed08u
#define IRQ_UART0 20

#endif
