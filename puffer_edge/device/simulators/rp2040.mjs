// A simulated RP2040 board: boot ROM, flash and UART0, whose line is a TCP port on this machine.
//
//   node rp2040.mjs --modules DIR --bootrom FILE --flash FILE [--state FILE] [--port N]
//
// Prints {"port": N} when the program has its UART running and {"fault": TEXT} when the program did what silicon does not allow; ends then, and
// when its standard input closes. Time is the chip's own: it runs as fast as it can, and waits for the line when idle.
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Fault, makeChip } from './chip.mjs';
import { FLASH_BYTES } from './flash_chip.mjs';

const SLICE = 20000; // instructions between two looks at the line
const BUSY_MS = 50; // after this long without a byte it naps between slices, and any byte wakes it
const NAP_MS = 5;

const { values: option } = parseArgs({
  options: { modules: { type: 'string' }, bootrom: { type: 'string' }, flash: { type: 'string' }, state: { type: 'string' }, port: { type: 'string', default: '0' } },
});
const emulator = await import(pathToFileURL(path.join(option.modules, 'rp2040js/dist/esm/index.js')));
const romBytes = fs.readFileSync(option.bootrom);
const rom = new Uint32Array(romBytes.buffer.slice(romBytes.byteOffset, romBytes.byteOffset + 0x4000));
const { memory, changed } = openFlash();

let chip, core, clock, uart, nanosPerCycle, restart;
let arriving = [], leaving = [], next = 0, feeder, socket = null, timer = null, active = 0, overruns = 0;

// The flash as it was, with the firmware programmed over it, as a person would; what the state file holds is kept.
function openFlash() {
  const memory = new Uint8Array(FLASH_BYTES).fill(0xff);
  const old = option.state && fs.existsSync(option.state) ? fs.readFileSync(option.state) : null;
  if (old?.length === FLASH_BYTES) memory.set(old);
  program(memory, fs.readFileSync(option.flash));
  if (!option.state) return { memory, changed() {} };
  fs.writeFileSync(option.state, memory);
  const file = fs.openSync(option.state, 'r+');
  return { memory, changed: (at, bytes) => fs.writeSync(file, memory, at, bytes, at) };
}

// Raw content from the start of flash, or UF2: 512-byte blocks with address and size.
function program(memory, image) {
  if (image.readUInt32LE(0) !== 0x0a324655) return memory.set(image);
  for (let at = 0; at < image.length; at += 512) {
    const address = image.readUInt32LE(at + 12), size = image.readUInt32LE(at + 16);
    memory.set(image.subarray(at + 32, at + 32 + size), address - 0x10000000);
  }
}

function start(scratch) {
  restart = null;
  [arriving, next] = [[], 0]; // what was on the line meanwhile is lost
  const reset = (values, reason) => { restart = { values, reason }; };
  chip = makeChip(emulator, { rom, memory, changed, reset, scratch });
  ({ core, clock } = chip);
  uart = chip.uart[0];
  uart.onByte = (byte) => leaving.push(byte);
  nanosPerCycle = 1e9 / chip.clkSys;
  chip.addClockListener((hertz) => { nanosPerCycle = 1e9 / hertz; });
  feeder = clock.createAlarm(feed);
}

// A byte arrives every ten bit times, whether the program is ready or not.
function feed() {
  if (next === arriving.length) return;
  const byte = arriving[next++];
  if (uart.enabled && uart.rxEnabled) {
    if (uart.rxFIFO.full) console.error(`the UART's receive FIFO overflowed (${++overruns} bytes lost)`);
    else uart.feedByte(byte);
  }
  if (next === arriving.length) [arriving, next] = [[], 0];
  else feeder.schedule(byteNanos());
}

const byteNanos = () => 1e10 / (uart.baudDivider ? uart.baudRate : 115200);

function receive(data) {
  const idle = next === arriving.length;
  for (const byte of data) arriving.push(byte);
  if (idle) feeder.schedule(byteNanos());
  active = performance.now();
  clearTimeout(timer);
  wake();
}

let scheduled = false;
function wake() {
  timer = null;
  if (!scheduled) setImmediate(run);
  scheduled = true;
}

// One slice; whether there is more to do at once. While the core waits for an interrupt, the clock jumps to the next alarm.
function slice() {
  for (let k = 0; k < SLICE && !restart; k++) {
    if (core.waiting && core.pendingInterrupts & core.enabledInterrupts) core.waiting = false;
    if (core.waiting) {
      const silent = next === arriving.length;
      if (clock.nextAlarm) clock.tick(clock.nanosToNextAlarm);
      if (silent && core.waiting) return false;
    } else {
      chip.checkExecution();
      clock.tick(core.executeInstruction() * nanosPerCycle);
    }
  }
  return true;
}

function run() {
  scheduled = false;
  let awake;
  try {
    awake = slice();
    if (restart) start(restart);
  } catch (error) {
    return fail(error);
  }
  if (!server.listening && uart.enabled) listen();
  if (leaving.length) {
    active = performance.now();
    socket?.write(Uint8Array.from(leaving));
    leaving = [];
  }
  if (next < arriving.length || (awake && performance.now() - active < BUSY_MS)) wake();
  else timer = setTimeout(wake, NAP_MS);
}

function fail(error) {
  const text = error instanceof Fault ? error.message : `the simulator failed: ${error.stack}`;
  console.error(text);
  process.stdout.write(`${JSON.stringify({ fault: text })}\n`, () => process.exit(3));
}

const server = net.createServer((connection) => {
  socket?.destroy(); // a board has one line; the newest caller has it
  socket = connection;
  connection.setNoDelay(true);
  connection.on('data', receive);
  connection.on('error', () => {});
  connection.on('close', () => { if (socket === connection) socket = null; });
});
// Only once the program listens too: nothing of the first question is lost.
function listen() {
  server.listen(Number(option.port), '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
}
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
start(null);
wake();
