// A real MicroPython (its WebAssembly port) as a board on a TCP serial line: the runtime of firmware/micropython, unchanged.
//
//   node micropython.mjs --modules DIR --root DIR [--port N] [--runtime DIR]
//
// --modules  the node_modules folder that holds @micropython/micropython-webassembly-pyscript
// --root     the board's own files (user.py, shield.py, installed policies); policies are written back to it
// --port     0 or nothing chooses one; {"port": N} on standard output says which
//
// The VM runs in a worker. Python never calls JavaScript: bytes are copied to and from two of its bytearrays between turns,
// so that its heap stays as it would be on a board. When standard input closes, the process ends.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const RING = 1 << 16;
const [RX_HEAD, RX_TAIL, TX_HEAD, TX_TAIL, WATCHDOG_MS, TURNS] = [0, 1, 2, 3, 4, 5]; // in the shared header
const HEADER = 32;

function rings(shared) {
  const header = new Int32Array(shared, 0, HEADER / 4);
  const ring = (at, head, tail) => ({ header, head, tail, bytes: new Uint8Array(shared, at, RING) });
  return { header, rx: ring(HEADER, RX_HEAD, RX_TAIL), tx: ring(HEADER + RING, TX_HEAD, TX_TAIL) };
}

/** Put as many bytes as fit; returns how many. Heads and tails count bytes modulo 2^32. */
function put(ring, bytes) {
  const head = Atomics.load(ring.header, ring.head);
  const room = RING - ((head - Atomics.load(ring.header, ring.tail)) | 0);
  const n = Math.min(room, bytes.length);
  for (let k = 0; k < n; k++) ring.bytes[(head + k) & (RING - 1)] = bytes[k];
  Atomics.store(ring.header, ring.head, (head + n) | 0);
  Atomics.notify(ring.header, ring.head);
  return n;
}

/** Take at most `limit` bytes. */
function take(ring, limit) {
  const tail = Atomics.load(ring.header, ring.tail);
  const n = Math.min(limit, (Atomics.load(ring.header, ring.head) - tail) | 0);
  const out = Buffer.alloc(n);
  for (let k = 0; k < n; k++) out[k] = ring.bytes[(tail + k) & (RING - 1)];
  Atomics.store(ring.header, ring.tail, (tail + n) | 0);
  Atomics.notify(ring.header, ring.tail);
  return out;
}

// ---------------------------------------------------------------------------------------------- main thread: the line

class Line {
  constructor(options) {
    this.options = options;
    this.socket = null;
    this.restart();
    this.server = net.createServer((socket) => this.connect(socket));
    this.server.listen(Number(options.port), '127.0.0.1', () => {
      process.stdout.write(JSON.stringify({ port: this.server.address().port }) + '\n');
    });
    setInterval(() => this.watch(), 50);
  }

  /** Like a reset of the chip: a new VM, empty buffers; the line stays open, and what the board had sent before still goes out on it. */
  restart() {
    if (this.tx) this.forward(take(this.tx, RING));
    this.worker?.removeAllListeners();
    this.worker?.terminate();
    const shared = new SharedArrayBuffer(HEADER + 2 * RING);
    Object.assign(this, rings(shared), { turns: 0, fed: Date.now() });
    this.worker = new Worker(new URL(import.meta.url), { workerData: { shared, options: this.options } });
    this.worker.on('message', () => this.restart()); // the only message: reset me
    this.worker.on('error', (error) => {
      process.stderr.write(`${error.stack}\n`);
      process.exit(1);
    });
    this.pump(this.tx);
  }

  connect(socket) {
    this.socket?.end(); // a serial line has one other end; what the old one had sent still arrives
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (data) => this.receive(socket, data));
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.socket === socket) this.socket = null;
    });
  }

  receive(socket, data) {
    const n = put(this.rx, data);
    if (n === data.length) {
      socket.resume();
    } else {
      socket.pause(); // the board is slower than the sender: nothing is lost, the sender waits
      setTimeout(() => this.receive(socket, data.subarray(n)), 1);
    }
  }

  /** Carry the board's bytes to whoever is connected, until this ring is no longer the board's. */
  async pump(tx) {
    while (tx === this.tx) {
      const data = take(tx, RING);
      if (data.length === 0) {
        const change = Atomics.waitAsync(tx.header, tx.head, Atomics.load(tx.header, tx.tail), 1000);
        if (change.async) await change.value;
      } else if (!this.forward(data)) {
        const socket = this.socket;
        await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => {});
      }
    }
  }

  /** Send bytes to whoever is connected; false: wait until these are gone. */
  forward(data) {
    return data.length === 0 || !this.socket || this.socket.destroyed || this.socket.write(data);
  }

  /** The watchdog, once the board has started it: no turn of the loop for so long is a reset. */
  watch() {
    const turns = Atomics.load(this.header, TURNS);
    const limit = Atomics.load(this.header, WATCHDOG_MS);
    if (turns !== this.turns) Object.assign(this, { turns, fed: Date.now() });
    else if (limit && Date.now() - this.fed > limit) this.restart();
  }
}

// ------------------------------------------------------------------------------------------------- worker: the board

const BOARD = `
import sys, uctypes
from array import array

class Board:
    clock_hz = 0  # counts nothing: the computer's own time would say nothing about a board
    name = b'wasm'
    unique_id = b'PESIMvm'

    def __init__(self):
        self.rx, self.tx = bytearray(1024), bytearray(8192)
        self.at = array('i', (0, 0, 0, 0))  # next of rx, end of rx, end of tx, watchdog in ms

    @property
    def watched(self):
        return self.at[3] > 0

    def read(self):
        at = self.at
        k = at[0]
        if k == at[1]:
            return -1
        at[0] = k + 1
        return self.rx[k]

    def write(self, buffer, length):
        end = self.at[2]
        for k in range(length):
            self.tx[end + k] = buffer[k]
        self.at[2] = end + length

    def start_watchdog(self, ms):
        self.at[3] = ms
        return True

    def feed(self):
        pass

    def free_bytes(self):
        return 1000000

from puffer_edge_device.runtime import Runtime, load_driver
board = Board()
runtime = Runtime(board, load_driver())
rx_at, tx_at, at = (uctypes.addressof(b) for b in (board.rx, board.tx, board.at))

def turn():
    """Microseconds that may be slept, -1 until a byte comes, -2 for the prompt, -3 for a reset."""
    us = runtime.poll()
    if runtime.done:
        runtime.device.rest()
        return -2 if runtime.link.leave else -3
    return us
`;

class VirtualBoard {
  constructor(mp, options, { header, rx, tx }) {
    Object.assign(this, { mp, options, header, rx, tx, installed: new Set(fs.readdirSync(options.root).filter(isPolicy)) });
  }

  load() {
    const { runtime, root } = this.options;
    for (const [target, source] of JSON.parse(fs.readFileSync(path.join(runtime, 'package.json'))).urls) {
      this.file(target, fs.readFileSync(path.join(runtime, source)));
    }
    for (const name of fs.readdirSync(root, { recursive: true })) {
      const source = path.join(root, name);
      if (fs.statSync(source).isFile()) this.file(name, fs.readFileSync(source));
    }
    this.mp.runPython(BOARD);
    [this.rxAt, this.txAt, this.at] = ['rx_at', 'tx_at', 'at'].map((name) => this.mp.globals.get(name));
    this.turn = this.mp.globals.get('turn');
  }

  file(name, data) {
    this.mp.FS.mkdirTree(path.posix.join('/', path.posix.dirname(name)));
    this.mp.FS.writeFile(path.posix.join('/', name), data);
  }

  int(k) {
    return this.mp._module.getValue(this.at + 4 * k, 'i32');
  }

  set(k, value) {
    this.mp._module.setValue(this.at + 4 * k, value, 'i32');
  }

  /** Runs until the host asked for the prompt (-2) or a reset (-3). */
  run() {
    for (;;) {
      if (this.int(0) === this.int(1)) {
        const data = take(this.rx, 1024);
        data.forEach((byte, k) => this.mp._module.setValue(this.rxAt + k, byte, 'i8'));
        this.set(0, 0);
        this.set(1, data.length);
      }
      const us = this.turn();
      Atomics.add(this.header, TURNS, 1);
      Atomics.store(this.header, WATCHDOG_MS, this.int(3));
      this.keep();
      this.drain();
      if (us < -1) return us;
      const tail = Atomics.load(this.header, RX_TAIL);
      if (us !== 0 && this.int(0) === this.int(1)) {
        const longest = this.int(3) ? 100 : Infinity; // ms; the loop must turn while a watchdog runs
        Atomics.wait(this.header, RX_HEAD, tail, us < 0 ? longest : us / 1000);
      }
    }
  }

  drain() {
    const out = Buffer.alloc(this.int(2));
    for (let k = 0; k < out.length; k++) out[k] = this.mp._module.getValue(this.txAt + k, 'i8');
    this.set(2, 0);
    this.send(out);
  }

  send(bytes) {
    while (bytes.length) {
      bytes = bytes.subarray(put(this.tx, bytes));
      if (bytes.length) Atomics.wait(this.header, TX_TAIL, (Atomics.load(this.header, TX_HEAD) - RING) | 0);
    }
  }

  /** Write policies that were installed or dropped back to the root, before the host hears of it. */
  keep() {
    const now = new Set(this.mp.FS.readdir('/').filter(isPolicy));
    for (const name of now) {
      if (this.installed.has(name)) continue;
      const target = path.join(this.options.root, name);
      fs.writeFileSync(`${target}.part`, this.mp.FS.readFile(`/${name}`));
      fs.renameSync(`${target}.part`, target);
    }
    for (const name of this.installed) if (!now.has(name)) fs.rmSync(path.join(this.options.root, name));
    this.installed = now;
  }

  /** The prompt; Ctrl-D ends it. */
  prompt() {
    this.mp.replInit();
    for (;;) {
      const data = take(this.rx, 1024);
      for (const byte of data) if (this.mp.replProcessChar(byte)) return;
      if (data.length === 0) Atomics.wait(this.header, RX_HEAD, Atomics.load(this.header, RX_TAIL));
    }
  }
}

function isPolicy(name) {
  return /^policy-\d+\.bin$/.test(name);
}

async function board() {
  const { shared, options } = workerData;
  const module = path.join(options.modules, '@micropython/micropython-webassembly-pyscript/micropython.mjs');
  const { loadMicroPython } = await import(pathToFileURL(module));
  const ends = rings(shared);
  let line = null;
  const mp = await loadMicroPython({ heapsize: 192 * 1024, pystack: 4096, linebuffer: false, stdout: (data) => line.send(Buffer.from(data)) });
  line = new VirtualBoard(mp, options, ends);
  line.load();
  if (line.run() === -2) line.prompt();
  parentPort.postMessage('reset');
}

function main() {
  const { values } = parseArgs({
    options: {
      modules: { type: 'string' },
      root: { type: 'string' },
      port: { type: 'string', default: '0' },
      runtime: { type: 'string', default: fileURLToPath(new URL('../../firmware/micropython', import.meta.url)) },
    },
  });
  if (!values.modules || !values.root) {
    process.stderr.write('usage: node micropython.mjs --modules DIR --root DIR [--port N] [--runtime DIR]\n');
    process.exit(2);
  }
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
  process.stdin.on('end', () => process.exit(0)).resume();
  values.modules = path.resolve(values.modules);
  return new Line(values);
}

if (isMainThread) main();
else await board();
