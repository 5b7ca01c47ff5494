// Peripherals of plain registers, for those that rp2040js lacks; the ROM and the firmware set them up and read them back.

export class BasePeripheral {
  constructor(resets = {}) {
    const values = new Map(Object.entries(resets).map(([offset, value]) => [Number(offset), value]));
    this.registers = { get: (offset) => values.get(offset) ?? 0, set: (offset, value) => values.set(offset, value >>> 0) };
  }

  read(offset) { return this.registers.get(offset); }

  write(offset, value) { this.registers.set(offset, value); }

  readUint32(offset) { return this.read(offset & 0xfff) >>> 0; }

  // Plain, XOR, set and clear aliases [datasheet 2.1.2].
  writeUint32Atomic(offset, value, kind) {
    const old = kind ? this.read(offset) : 0;
    this.write(offset, [value, old ^ value, old | value, old & ~value][kind] >>> 0);
  }
}

// IO_QSPI: only the override of chip select does something.
const SS_CTRL = 0x0c;

export class IoQspi extends BasePeripheral {
  constructor(ssi) {
    super();
    this.ssi = ssi;
  }

  write(offset, value) {
    super.write(offset, value);
    if (offset === SS_CTRL) this.ssi.force((value >> 8) & 3);
  }
}

// XIP_CTRL: writing FLUSH empties the cache; `flushed()` is told.
const CTRL = 0x00, FLUSH = 0x04, STAT = 0x08;

export class XipControl extends BasePeripheral {
  constructor(flushed) {
    super({ [CTRL]: 3 });
    this.flushed = flushed;
  }

  read(offset) { return offset === STAT ? 3 : offset === FLUSH ? 1 : super.read(offset); }

  write(offset, value) {
    if (offset === FLUSH) this.flushed();
    else super.write(offset, value);
  }
}

// RESETS: everything is held in reset at power-on and must be released before it is used [datasheet 2.14.3].
const RESET = 0x00, DONE = 0x08, ALL = 0x1ffffff;

export class Resets extends BasePeripheral {
  constructor() { super({ [RESET]: ALL }); }

  get held() { return this.registers.get(RESET); }

  read(offset) { return offset === DONE ? ~this.held & ALL : super.read(offset); }
}
