/* The closed loop of the page: plant → sensors that may fail → policy and shield → actuator, which somebody may push. */

/** @typedef {import("./puffer_edge.mjs").Policy} Policy */

/**
 * @typedef {{environment: {maxSteps: number}, reset: (random: () => number) => number[], observe: (state: number[]) => number[],
 *   step: (state: number[], action: number[]) => {state: number[], reward: number, cost: number, terminated: boolean}}} Plant
 *   plant.mjs
 * @typedef {{missed: number, invalid: number, noise: number}} Faults chances per tick, and standard deviation of the noise as
 *   a share of each channel's range
 * @typedef {import("./puffer_edge.mjs").Tick & {observation: number[]}} Row one tick, with what the sensors said
 */

const KEPT = 20000; // ticks of the trace that can be saved

/** @param {() => number} random @returns {number} a standard normal number (Box and Muller, 1958) */
const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** What happened, the latest `KEPT` ticks of it. */
export class Trace {
  /** @param {Policy} policy */
  constructor(policy) {
    this.policy = policy;
    /** @type {Row[]} */
    this.rows = [];
    this.dropped = 0;
  }

  /** @param {Row} row */
  add(row) {
    this.rows.push(row);
    if (this.rows.length >= 2 * KEPT) {
      this.dropped += KEPT;
      this.rows.splice(0, KEPT);
    }
  }

  /** Fixed-point numbers of every tick, one a line, under a line of names. @returns {string} */
  csv() {
    const { observations, actions } = this.policy.contract;
    const names = ["tick", "flags", ...observations.map((c) => c.name), ...actions.map((c) => `${c.name}_raw`)];
    names.push(...actions.map((c) => `${c.name}_applied`), "outcome", "state");
    const lines = this.rows.map(({ fixed, outcome, state }, k) =>
      [this.dropped + k, fixed.flags, ...fixed.observation, ...fixed.raw, ...fixed.applied, outcome, state].join(),
    );
    return [names.join(), ...lines, ""].join("\n");
  }
}

/** Policy, plant and what disturbs them; without a plant the observation is the caller's. */
export class Loop {
  /**
   * @param {Policy} policy
   * @param {Plant | null} plant
   * @param {() => number} [random] uniform numbers in [0, 1)
   */
  constructor(policy, plant, random = Math.random) {
    this.policy = policy;
    this.plant = plant;
    this.random = random;
    this.trace = new Trace(policy);
    /** @type {Faults} */
    this.faults = { missed: 0, invalid: 0, noise: 0 };
    this.push = policy.contract.actions.map(() => 0);
    this.manual = policy.contract.observations.map((c) => Math.min(Math.max(0, c.low), c.high));
    /** @type {Record<string, number>} */
    this.counts = {};
    this.episode = 0;
    this.steps = 0;
    this.total = 0; // the return so far
    this.first = true;
    this.ended = ""; // why, once the episode is over
    /** @type {number[]} */
    this.state = [];
    /** @type {number | null} */
    this.lastReturn = null;
    this.begin();
  }

  /** Start an episode: the plant from a start state, the policy as after power-on. */
  begin() {
    this.episode++;
    this.first = true;
    this.steps = 0;
    this.total = 0;
    this.ended = "";
    this.state = this.plant ? this.plant.reset(this.random) : [];
  }

  /** One base tick. @returns {Row} */
  tick() {
    if (this.ended) this.begin();
    const { policy } = this;
    const seen = this.#sense();
    const step = { reset: this.first, missed: this.random() < this.faults.missed, invalid: this.random() < this.faults.invalid };
    const answer = policy.tick(seen, step);
    const row = { ...answer, observation: seen };
    this.first = false;
    this.trace.add(row);
    for (const name of answer.reasons) this.counts[name] = (this.counts[name] ?? 0) + 1;
    this.#advance(answer.applied);
    return row;
  }

  #sense() {
    const { observations } = this.policy.contract;
    const clean = this.plant ? this.plant.observe(this.state) : this.manual;
    return clean.map((value, i) => value + this.faults.noise * (observations[i].high - observations[i].low) * normal(this.random));
  }

  /** @param {number[]} applied */
  #advance(applied) {
    this.steps++;
    if (!this.plant) return;
    const following = this.plant.step(this.state, applied.map((value, j) => value + this.push[j]));
    this.state = following.state;
    this.total += following.reward;
    if (following.terminated) this.ended = "terminated";
    else if (this.steps >= this.plant.environment.maxSteps) this.ended = "time is up";
    if (this.state.some((value) => !Number.isFinite(value))) this.ended = "the plant diverged";
    if (this.ended) this.lastReturn = this.total;
  }
}
