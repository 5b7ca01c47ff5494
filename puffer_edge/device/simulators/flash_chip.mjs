// The RP2040's flash: a serial NOR chip on the SSI controller, so that the real boot ROM erases and programs it.
//
// Modelled: the commands below, chip select by the controller or forced by IO_QSPI, write enable, programming that only
// clears bits, and whether the controller is set up for reading in place. Erasing and programming take no time.
import { BasePeripheral } from './registers.mjs';

export const FLASH_BYTES = 2 << 20;
const PAGE = 256, SECTOR = 4096, BLOCK = 65536;
const JEDEC_ID = [0xef, 0x40, 0x15];
const UNIQUE_ID = [0x50, 0x45, 0x53, 0x49, 0x4d, 0x00, 0x00, 0x01];
const WRITE_ENABLED = 2, QUAD_ENABLED = 2;

export class FlashChip {
  // `memory` is what the core reads in place; `changed(at, bytes)` is told of every byte that may differ now.
  constructor(memory, changed) {
    this.memory = memory;
    this.changed = changed;
    this.status = 0;
    this.command = null; // bytes since the chip was selected
  }

  select() { this.command ??= []; }

  // Erase and program begin when the chip is deselected.
  deselect() {
    const command = this.command ?? [];
    this.command = null;
    const size = { 0x20: SECTOR, 0x52: BLOCK / 2, 0xd8: BLOCK }[command[0]];
    if (command[0] === 0x06) this.status |= WRITE_ENABLED;
    else if (command[0] === 0x04) this.status &= ~WRITE_ENABLED;
    else if (size && command.length === 4) this.write(this.address(command) & ~(size - 1), size, () => 0xff);
    else if (command[0] === 0x02 && command.length > 4) this.program(command);
    else if (command[0] === 0x01) this.status &= ~WRITE_ENABLED;
  }

  // A page wraps around: bytes beyond its end go to its start.
  program(command) {
    const address = this.address(command), page = address & ~(PAGE - 1), masks = new Uint8Array(PAGE).fill(0xff);
    for (let k = 4; k < command.length; k++) masks[(address + k - 4) & (PAGE - 1)] = command[k];
    this.write(page, PAGE, (old, k) => old & masks[k]);
  }

  write(at, bytes, value) {
    if (!(this.status & WRITE_ENABLED)) return;
    this.status &= ~WRITE_ENABLED;
    for (let k = 0; k < bytes; k++) this.memory[at + k] = value(this.memory[at + k], k);
    this.changed(at, bytes);
  }

  address(command) { return ((command[1] << 16) | (command[2] << 8) | command[3]) & (FLASH_BYTES - 1); }

  // One byte goes in, one comes out.
  exchange(byte) {
    if (this.command === null) return 0xff;
    const k = this.command.push(byte) - 1;
    if (k === 0) return 0xff;
    switch (this.command[0]) {
      case 0x05: return this.status;
      case 0x35: return QUAD_ENABLED;
      case 0x9f: return JEDEC_ID[(k - 1) % 3];
      case 0x4b: return k > 4 ? UNIQUE_ID[(k - 5) % 8] : 0xff;
      case 0x03: return k > 3 ? this.memory[(this.address(this.command) + k - 4) & (FLASH_BYTES - 1)] : 0xff;
      default: return 0xff;
    }
  }
}

const CTRLR0 = 0x00, SSIENR = 0x08, SR = 0x28, RXFLR = 0x24, TXFLR = 0x20, DR0 = 0x60, DR_LAST = 0xec;
const TFNF = 2, TFE = 4, RFNE = 8, FIFO = 16;
const READS_IN_PLACE = 3; // transfer mode in CTRLR0
const BY_CONTROLLER = 0, FORCED_LOW = 2;

// The controller [datasheet 4.10]. `fault(text)` ends the simulation.
export class Ssi extends BasePeripheral {
  constructor(chip, fault) {
    super();
    this.chip = chip;
    this.fault = fault;
    this.received = [];
    this.override = BY_CONTROLLER;
    this.readable = false; // flash can be read in place
  }

  // GPIO_QSPI_SS_CTRL.OUTOVER: 0 the controller drives chip select, 2 low, 3 high.
  force(override) {
    if (override === FORCED_LOW) this.chip.select();
    else if (this.override === FORCED_LOW) this.chip.deselect();
    this.override = override;
    this.update();
  }

  update() {
    const mode = (this.registers.get(CTRLR0) >> 8) & 3;
    this.readable = this.registers.get(SSIENR) === 1 && mode === READS_IN_PLACE && this.override === BY_CONTROLLER;
  }

  read(offset) {
    if (offset === SR) {
      this.finish();
      return TFNF | TFE | (this.received.length ? RFNE : 0);
    }
    if (offset === RXFLR) return this.received.length;
    if (offset === TXFLR) return 0;
    if (offset >= DR0 && offset <= DR_LAST) return this.received.shift() ?? 0;
    return super.read(offset);
  }

  write(offset, value) {
    if (offset >= DR0 && offset <= DR_LAST) return this.transmit(value);
    if (offset === SSIENR || offset === CTRLR0) this.finish();
    if (offset === SSIENR && !(value & 1)) this.received = [];
    super.write(offset, value);
    this.update();
  }

  transmit(value) {
    if (this.registers.get(SSIENR) !== 1) return;
    if (this.override === BY_CONTROLLER) this.chip.select();
    if (this.received.length >= FIFO) this.fault('the receive FIFO of the flash controller overflows');
    this.received.push(this.chip.exchange(value & 0xff));
  }

  // The controller deselects the chip once it has sent all, which is when the program comes to look.
  finish() {
    if (this.override === BY_CONTROLLER && this.chip.command) this.chip.deselect();
  }
}
