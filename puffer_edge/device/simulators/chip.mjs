// An RP2040 that does not forgive: rp2040js, with the boot ROM's way into flash, and a fault wherever silicon would
// fault, read garbage or answer nothing but the plain emulator goes on.
import { FLASH_BYTES, FlashChip, Ssi } from './flash_chip.mjs';
import { BasePeripheral, IoQspi, Resets, XipControl } from './registers.mjs';

const ROM_BYTES = 0x4000, SRAM = 0x20000000, SRAM_END = 0x20042000;
const FLASH = 0x10000000, UNCACHED = 0x12000000, XIP_END = 0x14000000;
const WATCHDOG = 0x40058, RESETS = 0x4000c, USB_RAM = 0x50100;
// Reset bit of each peripheral, by the number under which rp2040js keeps it (address >> 12).
const RESET_BITS = {
  0x40000: 19, 0x40004: 18, 0x40014: 5, 0x40018: 6, 0x4001c: 8, 0x40020: 9, 0x40028: 12, 0x4002c: 13, 0x40030: 1,
  0x40034: 22, 0x40038: 23, 0x4003c: 16, 0x40040: 17, 0x40044: 3, 0x40048: 4, 0x4004c: 0, 0x40050: 14, 0x40054: 21,
  0x4005c: 15, 0x4006c: 20, 0x50000: 2, 0x50100: 24, 0x50110: 24, 0x50200: 10, 0x50300: 11,
};

export class Fault extends Error {}

// `emulator` is the module rp2040js; `memory` the 2 MiB of flash, which outlives the chip; `scratch` the watchdog's
// registers after a watchdog reset.
export function makeChip(emulator, { rom, memory, changed, reset, scratch }) {
  class Chip extends emulator.RP2040 {
    fault(text) {
      const [pc, lr] = [this.core.PC, this.core.LR].map((value) => `0x${value.toString(16)}`);
      throw new Fault(`${text} (pc ${pc}, lr ${lr})`);
    }

    // Flash and peripherals, before a read or a write goes on to rp2040js.
    check(address, size, verb) {
      const at = address >>> 0, name = `0x${at.toString(16)}`;
      if (at & (size - 1)) this.fault(`unaligned ${verb} of ${size} bytes at ${name}`);
      if (at < ROM_BYTES && verb === 'read') return;
      if (at < FLASH) this.fault(`${verb} at ${name}: ${at < ROM_BYTES ? 'ROM' : 'nothing is there'}`);
      if (at < XIP_END) this.checkFlash(at, name, verb);
      else if (at < 0x20000000) return;
      else if (at < 0x40000000 && (at < SRAM || at >= SRAM_END)) this.fault(`${verb} at ${name}: nothing is there`);
      else if (at >= 0x40000000 && at < 0x50400000) {
        const block = (at >>> 14) << 2, bit = RESET_BITS[block];
        if (!this.peripherals[block] && block !== USB_RAM) this.fault(`${verb} at ${name}: nothing is there`);
        const inRom = this.core.PC < ROM_BYTES; // the ROM writes to SYSCFG before it releases it, in vain
        if (bit !== undefined && (this.resets.held >> bit) & 1 && !inRom) this.fault(`${verb} at ${name}: the peripheral is held in reset`);
      }
    }

    checkFlash(at, name, verb) {
      if (verb === 'write') this.fault(`write at ${name}: flash cannot be stored to`);
      if ((at & 0xffffff) >= FLASH_BYTES) this.fault(`read at ${name}: beyond the flash chip`);
      if (!this.ssi.readable) this.fault(`read at ${name} while the flash is not set up for reading`);
      if (this.stale && at < UNCACHED) this.fault(`read at ${name}: flash was written and its cache not flushed`);
    }

    readUint32(address) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END) || address & 3) this.check(address, 4, 'read');
      return super.readUint32(address);
    }

    readUint16(address) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END) || address & 1) this.check(address, 2, 'read');
      return super.readUint16(address);
    }

    readUint8(address) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END)) this.check(address, 1, 'read');
      return super.readUint8(address);
    }

    writeUint32(address, value) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END) || address & 3) this.check(address, 4, 'write');
      super.writeUint32(address, value);
    }

    writeUint16(address, value) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END) || address & 1) this.check(address, 2, 'write');
      super.writeUint16(address, value);
    }

    writeUint8(address, value) {
      if (!(address >>> 0 >= SRAM && address >>> 0 < SRAM_END)) this.check(address, 1, 'write');
      super.writeUint8(address, value);
    }

    // Where the next instruction comes from.
    checkExecution() {
      const at = this.core.PC;
      if (at < SRAM_END && (at >= SRAM || at < ROM_BYTES)) return;
      if (at >= FLASH && at < FLASH + FLASH_BYTES) return;
      this.fault(`execution at 0x${at.toString(16)}: no code is there`);
    }

    // rp2040js calls this while it is built: the core cannot start before the ROM is there, and the flash outlives a reset.
    reset() { this.pwm.reset(); }
  }
  const chip = new Chip();
  return furnish(chip, { rom, memory, changed, reset, scratch });
}

function furnish(chip, { rom, memory, changed, reset, scratch }) {
  const fault = (text) => chip.fault(text);
  chip.flash = memory;
  chip.flashView = new DataView(memory.buffer, memory.byteOffset, memory.length);
  chip.bootrom.set(rom);
  const flash = new FlashChip(memory, (at, bytes) => {
    chip.stale = true;
    changed(at, bytes);
  });
  chip.stale = false;
  chip.ssi = new Ssi(flash, fault);
  chip.resets = new Resets();
  Object.assign(chip.peripherals, {
    0x14000: new XipControl(() => { chip.stale = false; }),
    0x18000: chip.ssi,
    [RESETS]: chip.resets,
    0x40018: new IoQspi(chip.ssi),
    0x40060: new BasePeripheral({ 0x18: 0x80001000 }), // ROSC: STATUS says stable
    0x40064: new BasePeripheral(),
  });
  for (const pin of chip.qspi) {
    pin.padValue = 0x5a; // as on silicon after a reset; rp2040js begins with the input switched off
    pin.setInputValue(true); // nobody holds BOOTSEL
  }
  const watchdog = chip.peripherals[WATCHDOG];
  watchdog.onWatchdogTrigger = () => reset(Uint32Array.from(watchdog.scratchData), watchdog.reason);
  if (scratch) {
    watchdog.scratchData.set(scratch.values);
    watchdog.reason = scratch.reason;
  }
  chip.onBreak = (code) => fault(`undefined instruction or breakpoint ${code}`);
  chip.logger = strictLogger(fault);
  chip.core.VTOR = 0;
  chip.core.reset();
  return chip;
}

// The emulator's own complaints: about the core and the bus they are the program's fault, else the emulator's limits.
function strictLogger(fault) {
  const said = new Set();
  const complain = (name, text) => {
    if (name === 'RP2040' || name === 'CortexM0Core') fault(text);
    if (!said.has(name + text)) console.error(`not simulated: ${name}: ${text}`);
    said.add(name + text);
  };
  return { debug() {}, info() {}, warn: complain, error: complain };
}
