/* A policy behind its shield in JavaScript: pe_engine.wasm runs policy.bin with the bits of every other board.
 *
 *     import { Policy } from "./puffer_edge.mjs";
 *     const policy = await Policy.load({ image: new URL("policy.bin", import.meta.url) });
 *     const { applied, flags, reasons } = policy.tick([0.1, 0, 0.02, 0], { reset: true });
 *
 * For browsers and for node 18 or newer, without dependencies. Numbers are physical values in the contract's units outside,
 * fixed point inside; what happens in a tick is written down in docs/tick.md of puffer-edge. */

/** Bits of a step request and of an outcome, as in firmware/shared/protocol.py. */
export const STEP = Object.freeze({ RESET: 1, MISSED: 2, INVALID: 4 });
export const OUTCOME = Object.freeze({ SATURATED: 1, MISSED: 2, INVALID: 4, STALE: 8, POLICY_RAN: 16 });
export const REASON = Object.freeze({ SHIFT: 16, STAGES: 8, INVALID: 256, STALE: 512 });

const MAX_BYTES = 16 << 20; // of an engine or an image
const INT32 = 2 ** 31 - 1;

/**
 * What pe_open's checks say, by number; then the module's own. The order is that of firmware/c/pe_engine.h.
 * @type {Readonly<Record<number, string>>}
 */
export const CHECKS = Object.freeze({
  1: "its size is no multiple of 4, or smaller than a header",
  2: "it is no policy image, or one of another version",
  3: "its size differs from the one in its header: it is cut or padded",
  4: "a count, the period or the buffer size is out of range",
  5: "a section lies outside the file",
  6: "a channel's range, safe or initial value is impossible",
  7: "its operations stand in an order that is not allowed",
  8: "the widths of its operations disagree",
  9: "an operation holds a number out of range",
  10: "the operations section is cut or too long",
  11: "the counts of the shield's bytecode are wrong",
  12: "the shield's bytecode holds an unknown or unsafe instruction",
  100: "its SHA-256 does not match its content: it is damaged",
  101: "it does not fit into the memory of the WebAssembly module",
});

/** Something from outside cannot be used; the message says what. */
export class PolicyError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "PolicyError";
  }
}

/**
 * @typedef {{name: string, unit: string, low: number, high: number, fraction_bits: number}} ObservationChannel
 * @typedef {ObservationChannel & {safe: number, initial: number}} ActionChannel
 * @typedef {{name: string, observations: ObservationChannel[], actions: ActionChannel[], head: string, rate_hz: number,
 *   policy_divider: number, staleness_limit: number}} Contract the fields of a contract that this module uses
 * @typedef {{raw: number[], applied: number[], fixed: {flags: number, observation: number[], raw: number[], applied: number[]},
 *   outcome: number, flags: string[], reasons: string[], state: number}} Tick proposed and applied action in physical units;
 *   fixed: what the engine was given (the observation is zeros where it was missed or invalid) and gave; the outcome's 32
 *   bits, its flags and the shield's reasons by name; the digest of the state
 * @typedef {URL | string | ArrayBuffer | Uint8Array<ArrayBuffer>} Source an address, or what lies there
 */

/**
 * The nearest integer, the even one of two that are equally near: the only way in which a float becomes fixed point.
 * @param {number} x finite
 * @returns {number}
 */
export function roundHalfEven(x) {
  const below = Math.floor(x);
  const over = x - below; // exact: both have the same binary grid
  if (over !== 0.5) return over < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/**
 * Physical values to fixed point. The contract's ranges are applied by the engine, which flags what it saturates.
 * @param {ArrayLike<number>} values one a channel
 * @param {{fraction_bits: number}[]} channels
 * @returns {Int32Array | null} null where a value is NaN or infinite: nothing may be computed from such an observation
 */
export function toFixed(values, channels) {
  const fixed = new Int32Array(channels.length);
  for (let i = 0; i < channels.length; i++) {
    if (!Number.isFinite(values[i])) return null;
    const scaled = Math.min(Math.max(values[i] * 2 ** channels[i].fraction_bits, -INT32), INT32);
    fixed[i] = roundHalfEven(scaled);
  }
  return fixed;
}

/**
 * Fixed point back to physical values.
 * @param {ArrayLike<number>} fixed one a channel
 * @param {{fraction_bits: number}[]} channels
 * @returns {number[]}
 */
export function toPhysical(fixed, channels) {
  return channels.map((channel, i) => fixed[i] * 2 ** -channel.fraction_bits);
}

/**
 * The bytes behind a source.
 * @param {Source} source
 * @param {string} what its name, for messages
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function read(source, what) {
  let bytes;
  if (source instanceof Uint8Array) bytes = source;
  else if (source instanceof ArrayBuffer) bytes = new Uint8Array(source);
  else {
    const url = new URL(source, import.meta.url);
    if (url.protocol === "file:" && typeof process !== "undefined") {
      bytes = new Uint8Array(await (await import("node:fs/promises")).readFile(url));
    } else {
      const answer = await fetch(url);
      if (!answer.ok) throw new PolicyError(`${what}: ${url.pathname} is not there (${answer.status} ${answer.statusText})`);
      bytes = new Uint8Array(await answer.arrayBuffer());
    }
  }
  if (bytes.length > MAX_BYTES) throw new PolicyError(`${what} has ${bytes.length} bytes, more than ${MAX_BYTES}`);
  return bytes;
}

/** @param {Uint8Array} bytes @returns {string} */
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** A checked policy with its shield and its state. Make one with `Policy.load`. */
export class Policy {
  #exports;
  #observation;
  #raw;
  #applied;

  /**
   * Check an image, replay its own test vectors, and reset. Every policy has a module instance, hence a state, of its own.
   * @param {{image: Source, engine?: Source | WebAssembly.Module, digest?: string, stages?: string[]}} options
   *   image: policy.bin; engine: pe_engine.wasm, by default the file beside this module; digest: the hexadecimal SHA-256
   *   that the image must have (the manifest's), if it is to be that very one; stages: names of the shield's stages, which
   *   the image does not hold
   * @returns {Promise<Policy>}
   * @throws {PolicyError} a file is missing, or the image is damaged, another one, or does not pass its vectors
   */
  static async load({ image, engine = new URL("pe_engine.wasm", import.meta.url), digest, stages = [] }) {
    const module = engine instanceof WebAssembly.Module ? engine : await WebAssembly.compile(await read(engine, "the engine"));
    const instance = await WebAssembly.instantiate(module, {});
    return new Policy(instance, await read(image, "the image"), digest, stages);
  }

  /**
   * @param {WebAssembly.Instance} instance
   * @param {Uint8Array} image
   * @param {string | undefined} digest
   * @param {string[]} stages
   */
  constructor(instance, image, digest, stages) {
    const engine = /** @type {any} */ (instance.exports);
    const at = engine.room(image.length);
    if (at === 0) throw new PolicyError(`the image is refused: ${CHECKS[101]}`);
    new Uint8Array(engine.memory.buffer, at, image.length).set(image);
    const check = engine.open(image.length);
    if (check !== 0) throw new PolicyError(`the image is refused: ${CHECKS[check] ?? `check ${check}`}`);
    /** SHA-256 of the image, hexadecimal. */
    this.digest = hex(image.subarray(-32));
    if (digest !== undefined && digest !== this.digest) {
      throw new PolicyError(`this is another image than the expected one: its digest is ${this.digest}, not ${digest}`);
    }
    const wrong = engine.self_test();
    if (wrong !== 0) throw new PolicyError(`the image does not pass its own vectors: step ${wrong - 1} differs`);
    const text = new TextDecoder().decode(new Uint8Array(engine.memory.buffer, engine.contract_at(), engine.contract_bytes()));
    /** @type {Contract} */
    this.contract = JSON.parse(text);
    if (this.contract.observations?.length !== engine.observations() || this.contract.actions?.length !== engine.actions()) {
      throw new PolicyError("the image's contract names other channels than its header counts");
    }
    /** Steps that were replayed when the image was loaded. */
    this.selfTestSteps = engine.self_test_steps();
    /** Base period in seconds. */
    this.period = engine.period_us() / 1e6;
    this.stages = [...stages];
    this.#exports = engine;
    // Memory grows in room and open alone, so these views stay good.
    this.#observation = new Int32Array(engine.memory.buffer, engine.observation_at(), engine.observations());
    this.#raw = new Int32Array(engine.memory.buffer, engine.raw_at(), engine.actions());
    this.#applied = new Int32Array(engine.memory.buffer, engine.applied_at(), engine.actions());
  }

  /** SHA-256 of contract, program and shield, hexadecimal: what a board reports, and what a manifest lists. */
  get digests() {
    const [contract, program, shield] = [0, 1, 2].map((section) => {
      const at = this.#exports.section_digest(section);
      return hex(new Uint8Array(this.#exports.memory.buffer, at, 32));
    });
    return { image: this.digest, contract, program, shield };
  }

  /** State as after power-on. */
  reset() {
    this.#exports.reset();
  }

  /** CRC-32 of the state, as every board computes it. */
  get state() {
    return this.#exports.state_digest() >>> 0;
  }

  /**
   * One base tick in fixed point: the engine itself.
   * @param {number} flags bits of STEP
   * @param {ArrayLike<number>} [observation] int32, one a channel; not read when missed or invalid
   * @returns {{raw: Int32Array, applied: Int32Array, outcome: number}} the arrays are overwritten by the next tick
   */
  step(flags, observation) {
    if (observation !== undefined) this.#observation.set(observation);
    const outcome = this.#exports.tick(flags) >>> 0;
    return { raw: this.#raw, applied: this.#applied, outcome };
  }

  /**
   * One base tick in physical units. Call it once a period, whether the sensors answered or not.
   * @param {ArrayLike<number> | Record<string, number> | null} observation in the contract's order, or by channel name;
   *   null: nothing came (missed); a NaN or infinite value makes the whole observation invalid
   * @param {{reset?: boolean, missed?: boolean, invalid?: boolean}} [step] reset: clear the state first; missed and
   *   invalid: what the sensors' driver says
   * @returns {Tick}
   * @throws {PolicyError} another number of values, an unknown channel, or something that is not a number
   */
  tick(observation, { reset = false, missed = false, invalid = false } = {}) {
    let flags = (reset ? STEP.RESET : 0) | (missed || observation === null ? STEP.MISSED : 0) | (invalid ? STEP.INVALID : 0);
    let fixed = null;
    if (observation !== null && !missed && !invalid) {
      fixed = toFixed(this.#inOrder(observation), this.contract.observations);
      if (fixed === null) flags |= STEP.INVALID;
    }
    const { raw, applied, outcome } = this.step(flags, fixed ?? undefined);
    const { observations, actions } = this.contract;
    return {
      raw: toPhysical(raw, actions),
      applied: toPhysical(applied, actions),
      fixed: { flags, observation: [...(fixed ?? observations.map(() => 0))], raw: [...raw], applied: [...applied] },
      outcome,
      flags: this.flags(outcome),
      reasons: this.reasons(outcome),
      state: this.state,
    };
  }

  /**
   * Names of an outcome's flags.
   * @param {number} outcome
   * @returns {string[]}
   */
  flags(outcome) {
    return Object.entries(OUTCOME).flatMap(([name, bit]) => (outcome & bit ? [name.toLowerCase()] : []));
  }

  /**
   * Names of the shield's stages that acted, or of the fallback.
   * @param {number} outcome
   * @returns {string[]}
   */
  reasons(outcome) {
    const bits = outcome >>> REASON.SHIFT;
    const names = [];
    for (let k = 0; k < REASON.STAGES; k++) if ((bits >> k) & 1) names.push(this.stages[k] ?? `stage${k}`);
    if (bits & REASON.INVALID) names.push("invalid");
    if (bits & REASON.STALE) names.push("stale");
    return names;
  }

  /**
   * Replay recorded steps (vectors.bin of a bundle) and compare every bit. Leaves the state reset.
   * @param {Uint8Array} vectors
   * @returns {{steps: number, different: number, first: number | null}} first: the first step that differs
   * @throws {PolicyError} the length is no whole number of steps
   */
  replay(vectors) {
    const n = this.#observation.length;
    const m = this.#raw.length;
    const width = 3 + n + 2 * m;
    if (vectors.length % (4 * width) !== 0) {
      throw new PolicyError(`${vectors.length} bytes of vectors are no whole number of steps of ${4 * width} bytes`);
    }
    const words = new Int32Array(vectors.slice().buffer);
    const steps = words.length / width;
    let different = 0;
    let first = null;
    this.reset();
    for (let k = 0; k < steps; k++) {
      const row = words.subarray(k * width, (k + 1) * width);
      const { raw, applied, outcome } = this.step(row[0], row.subarray(1, 1 + n));
      const got = [...raw, ...applied, outcome | 0, this.state | 0];
      if (got.some((value, i) => value !== row[1 + n + i])) {
        different++;
        first ??= k;
      }
    }
    this.reset();
    return { steps, different, first };
  }

  /**
   * @param {ArrayLike<number> | Record<string, number>} observation
   * @returns {number[]}
   */
  #inOrder(observation) {
    const channels = this.contract.observations;
    const names = channels.map((channel) => channel.name);
    let values;
    if ("length" in observation) {
      values = Array.from(/** @type {ArrayLike<number>} */ (observation));
      if (values.length !== names.length) {
        throw new PolicyError(`an observation has ${names.length} channels (${names.join(", ")}), this one has ${values.length}`);
      }
    } else {
      const unknown = Object.keys(observation).filter((name) => !names.includes(name));
      const missing = names.filter((name) => !(name in observation));
      if (unknown.length || missing.length) {
        const faults = [...unknown.map((name) => `unknown channel ${name}`), ...missing.map((name) => `missing channel ${name}`)];
        throw new PolicyError(`${faults.join("; ")}: the observation has ${names.join(", ")}`);
      }
      values = names.map((name) => observation[name]);
    }
    const strange = values.findIndex((value) => typeof value !== "number");
    if (strange >= 0) throw new PolicyError(`${names[strange]} is ${JSON.stringify(values[strange])}, not a number`);
    return values;
  }
}
