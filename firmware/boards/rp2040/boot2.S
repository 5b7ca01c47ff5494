@ Second stage of the RP2040's boot: the ROM copies these 252 bytes and their CRC to RAM and runs them.
@ It maps the flash with the plain 03h read, one data line, which every serial NOR flash understands at
@ 21 MHz (125 / 6). The firmware runs from RAM, so that a faster mode would gain a few milliseconds at boot.

    .syntax unified
    .cpu cortex-m0plus
    .thumb
    .section .boot2, "ax"
    .global boot2

    .equ SSI, 0x18000000
    .equ CTRLR0, 0x00
    .equ CTRLR1, 0x04
    .equ SSIENR, 0x08
    .equ BAUDR, 0x14
    .equ SPI_CTRLR0, 0xf4

boot2:
    ldr r3, =SSI
    movs r0, #0
    str r0, [r3, #SSIENR]       @ the settings can be changed only while it is off
    movs r1, #6
    str r1, [r3, #BAUDR]        @ clk_sys / 6
    ldr r1, =(31 << 16) | (3 << 8)
    str r1, [r3, #CTRLR0]       @ standard SPI, frames of 32 bits, send the address then receive
    str r0, [r3, #CTRLR1]       @ one frame an access
    ldr r1, =(0x03 << 24) | (2 << 8) | (6 << 2)
    movs r2, #SPI_CTRLR0
    str r1, [r3, r2]            @ command 03h, 8 bits of it, 24 bits of address
    movs r0, #1
    str r0, [r3, #SSIENR]

    ldr r0, =0x10000100         @ the firmware's vectors follow this stage
    ldr r1, =0xe000ed08
    str r0, [r1]
    ldmia r0!, {r1, r2}
    msr msp, r1
    bx r2

    .ltorg
