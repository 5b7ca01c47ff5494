/* The page: loads engine, policy and plant, runs them at the contract's rate, and shows what goes in and out. */
import { drawing, strip, track } from "./drawing.mjs";
import { Loop } from "./loop.mjs";
import { OUTCOME, Policy, REASON } from "./puffer_edge.mjs";

const SECONDS = 10; // that the strips show
const PAUSE_S = 0.8; // between two episodes
const MOST_TICKS = 200; // in one frame of the screen

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);

/** @typedef {{name: string, digest: string, stages: string[], plant: string, withoutPlant: string}} About written by the export */

/**
 * @param {string} tag
 * @param {Record<string, any>} fields
 * @param {...(Node | string)} children
 * @returns {any}
 */
function make(tag, fields, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

/** @param {number} value @returns {string} four figures, never in powers of ten where a sensor's number is meant */
const figures = (value) => (Number.isFinite(value) ? value.toFixed(Math.abs(value) >= 100 ? 1 : Math.abs(value) >= 10 ? 2 : 3) : "–");

/**
 * A slider with its value; returns the input.
 * @param {HTMLElement} parent
 * @param {string} text
 * @param {{min: number, max: number, value: number, say: (value: number) => string, set: (value: number) => void}} options
 */
function slider(parent, text, { min, max, value, say, set }) {
  const input = make("input", { type: "range", min, max, step: (max - min) / 200, value });
  const output = make("output", {}, say(value));
  input.addEventListener("input", () => {
    set(Number(input.value));
    output.value = say(Number(input.value));
  });
  parent.append(make("label", { className: "slider" }, make("span", {}, text), output, input));
  return input;
}

/** @param {{low: number, high: number}} channel */
const range = ({ low, high }) => `${low} … ${high}`;

/**
 * The part of a channel's range that a strip shows: less than all of it, around 0, while the values are small.
 * @param {{low: number, high: number}} channel
 * @param {(number | null)[]} values
 * @returns {{low: number, high: number}}
 */
function shown({ low, high }, values) {
  const most = values.reduce((/** @type {number} */ before, value) => Math.max(before, Math.abs(value ?? 0)), high / 50);
  const power = 10 ** Math.floor(Math.log10(most));
  const nice = [1, 2, 5, 10].map((step) => Number((step * power).toPrecision(1))).find((reach) => reach >= most) ?? high;
  return low === -high && nice < high ? { low: -nice, high: nice } : { low, high };
}

/** Everything on the page that changes. */
export class Demo {
  /**
   * @param {Policy} policy
   * @param {import("./loop.mjs").Plant | null} plant
   */
  constructor(policy, plant) {
    this.policy = policy;
    this.loop = new Loop(policy, plant);
    this.running = true;
    this.speed = 1;
    this.span = Math.max(Math.round(SECONDS / policy.period), 20);
    this.owed = 0; // seconds that the loop is behind
    this.rest = 0; // seconds until the next episode
    const names = policy.contract.observations.map((c) => c.name);
    this.draw = plant ? drawing(names) : null;
    /** @type {Record<string, any>} */
    this.facts = {};
    this.views = this.#strips();
    this.#controls();
  }

  /** Let `seconds` of real time pass. @param {number} seconds */
  pass(seconds) {
    if (!this.running) return;
    if (this.rest > 0) {
      this.rest -= seconds;
      return;
    }
    this.owed += seconds * this.speed;
    for (let k = 0; this.owed >= this.policy.period && k < MOST_TICKS; k++) {
      this.owed -= this.policy.period;
      this.loop.tick();
      if (this.loop.ended) {
        this.rest = PAUSE_S;
        this.owed = 0;
      }
    }
  }

  /** Paint everything anew. */
  show() {
    const { loop, policy } = this;
    const { observations, actions } = policy.contract;
    const rows = loop.trace.rows.slice(-this.span);
    const last = rows.at(-1);
    const failed = rows.map((row) => (row.outcome & (OUTCOME.MISSED | OUTCOME.INVALID)) !== 0);
    if (this.draw) this.draw(element("scene"), this.#look());
    this.views.observations.forEach((view, i) => {
      const values = rows.map((row, k) => (failed[k] ? null : row.observation[i]));
      const { low, high } = shown(observations[i], values);
      strip(view.canvas, [{ values, ink: "sensor", width: 1.6 }], { low, high, span: this.span, rule: low < 0 && high > 0 ? 0 : undefined, marks: failed });
      view.small.textContent = range(observations[i]) + (high < observations[i].high ? `, shown ±${high}` : "");
      view.value.textContent = last && !failed.at(-1) ? figures(last.observation[i]) : "–";
    });
    this.views.actions.forEach((view, j) => {
      const { low, high, safe } = actions[j];
      const lines = [
        { values: rows.map((row) => row.raw[j]), ink: "raw", width: 1.4 },
        { values: rows.map((row) => row.applied[j]), ink: "applied", width: 2 },
      ];
      strip(view.canvas, lines, { low, high, span: this.span, rule: safe });
      view.value.textContent = last ? figures(last.applied[j]) : "–";
    });
    this.views.reasons.forEach((view) => {
      track(view.canvas, rows.map((row) => ((row.outcome >>> REASON.SHIFT) & view.bit) !== 0), this.span, view.bit < 256 ? "raw" : "alarm");
      view.value.textContent = String(loop.counts[view.name] ?? 0);
    });
    this.#facts();
  }

  #facts() {
    const { loop } = this;
    const facts = loop.plant
      ? { episode: loop.episode, time: `${(loop.steps * this.policy.period).toFixed(1)} s`, return: figures(loop.total) }
      : { ticks: loop.steps };
    if (loop.lastReturn !== null) Object.assign(facts, { "last episode": figures(loop.lastReturn) });
    if (loop.plant) Object.assign(facts, { "": loop.ended });
    for (const [name, value] of Object.entries(facts)) {
      if (!this.facts[name]) {
        this.facts[name] = make("b", {});
        element("facts").append(make("div", {}, make("span", {}, name || "\u00a0"), this.facts[name]));
      }
      this.facts[name].textContent = String(value);
    }
  }

  #look() {
    const { observations, actions } = this.policy.contract;
    const clean = /** @type {any} */ (this.loop.plant).observe(this.loop.state);
    const largest = Math.max(Math.abs(actions[0].low), Math.abs(actions[0].high));
    const applied = this.loop.trace.rows.at(-1)?.applied[0] ?? 0;
    return {
      see: Object.fromEntries(observations.map((c, i) => [c.name, clean[i]])),
      range: Object.fromEntries(observations.map((c) => [c.name, c])),
      drive: applied / largest,
      push: this.loop.push[0] / largest,
    };
  }

  #controls() {
    const { loop } = this;
    element("scene").hidden = !this.draw;
    element("push").hidden = !loop.plant;
    element("inputs").hidden = Boolean(loop.plant);
    this.policy.contract.actions.forEach((c, j) => {
      const reach = (c.high - c.low) / 2;
      const say = (/** @type {number} */ value) => `${figures(value)} ${c.unit}`;
      const set = (/** @type {number} */ value) => (loop.push[j] = value);
      const input = slider(element("push"), `added to ${c.name}; let go to stop`, { min: -reach, max: reach, value: 0, say, set });
      input.addEventListener("pointerup", () => {
        input.value = 0;
        input.dispatchEvent(new Event("input"));
      });
    });
    this.policy.contract.observations.forEach((c, i) => {
      const say = (/** @type {number} */ value) => `${figures(value)} ${c.unit}`;
      slider(element("inputs"), c.name, { min: c.low, max: c.high, value: loop.manual[i], say, set: (value) => (loop.manual[i] = value) });
    });
    const percent = (/** @type {number} */ value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
    for (const [fault, text, max] of /** @type {["missed" | "invalid" | "noise", string, number][]} */ ([
      ["missed", "missed: nothing comes, share of ticks", 1],
      ["invalid", "invalid: NaN, share of ticks", 1],
      ["noise", "noise: deviation, share of the range", 0.1],
    ])) {
      slider(element("faults"), text, { min: 0, max, value: 0, say: percent, set: (value) => (loop.faults[fault] = value) });
    }
    const limit = this.policy.contract.staleness_limit;
    element("hint").textContent =
      `While observations are missed the policy's last proposal holds; after more than ${limit} in a row, ` +
      "and at once when one is invalid, the contract's safe output acts. Every tick passes the shield.";
    element("pause").addEventListener("click", () => {
      this.running = !this.running;
      element("pause").textContent = this.running ? "Pause" : "Go on";
    });
    element("reset").addEventListener("click", () => {
      loop.begin();
      this.rest = 0;
    });
    element("speed").addEventListener("change", () => (this.speed = Number(element("speed").value)));
    element("save").addEventListener("click", () => {
      const address = URL.createObjectURL(new Blob([loop.trace.csv()], { type: "text/csv" }));
      make("a", { href: address, download: `${this.policy.contract.name}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  #strips() {
    const { observations, actions } = this.policy.contract;
    const row = (/** @type {string} */ parent, /** @type {string} */ kind, /** @type {string} */ name, /** @type {string} */ small, unit = "") => {
      const view = { name, bit: 0, canvas: make("canvas", {}), value: make("span", {}), small: make("small", {}, small) };
      const label = make("div", { className: "name" }, name, view.small);
      element(parent).append(make("div", { className: `row ${kind}` }, label, view.canvas, make("div", { className: "value" }, view.value, make("small", {}, unit))));
      return view;
    };
    const unit = (/** @type {{unit: string}} */ c) => (c.unit === "1" ? "" : c.unit);
    const reasons = this.policy.stages.map((name, k) => ({ name, bit: 1 << k, small: "stage of the shield" }));
    reasons.push({ name: "invalid", bit: REASON.INVALID, small: "safe output" }, { name: "stale", bit: REASON.STALE, small: "safe output" });
    return {
      observations: observations.map((c) => row("observations", "", c.name, range(c), unit(c))),
      actions: actions.map((c) => row("actions", "action", c.name, `${range(c)}, safe ${c.safe}`, unit(c))),
      reasons: reasons.map(({ name, bit, small }) => Object.assign(row("reasons", "mark", name, small), { bit })),
    };
  }
}

/** @returns {Promise<Demo>} */
async function start() {
  /** @type {About} */
  const about = JSON.parse(element("about").textContent);
  const policy = await Policy.load({ image: new URL("policy.bin", import.meta.url), digest: about.digest, stages: about.stages });
  const plant = about.plant ? await import(new URL(about.plant, import.meta.url).href) : null;
  const { contract } = policy;
  document.title = about.name;
  element("title").textContent = `${about.name}: a policy behind its shield`;
  const shield = about.stages.length ? about.stages.join(", ") : "none";
  element("status").textContent =
    `The C engine as WebAssembly, ${contract.rate_hz} ticks a second. It has replayed the ${policy.selfTestSteps} test vectors of the image. Shield: ${shield}.`;
  const source = plant ? "The plant's equations are printed from a trace of the Python environment." : about.withoutPlant;
  element("foot").textContent = `Image ${policy.digest}. ${source} Made by puffer-edge.`;
  element("board").hidden = false;
  return new Demo(policy, plant);
}

/** The page itself; rejected where it cannot start, which the page says. */
export const demo = start();

demo.then(
  (page) => {
    let before = performance.now();
    const frame = (/** @type {number} */ now) => {
      page.pass(Math.min(Math.max(now - before, 0) / 1000, 0.25)); // a hidden tab does not catch up
      before = now;
      page.show();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  },
  (error) => {
    element("status").textContent = error.message;
    element("status").className = "bad";
  },
);
