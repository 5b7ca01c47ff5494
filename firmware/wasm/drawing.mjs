/* What the page draws: a cart with its pole, a pendulum, and strips of the latest ticks. Dynamics are not here. */

/** @param {string} name @returns {string} a colour of the page's style */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/**
 * A canvas made ready for one picture, in CSS pixels.
 * @param {HTMLCanvasElement} canvas
 * @returns {{pen: CanvasRenderingContext2D, width: number, height: number}}
 */
export function clear(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.lineCap = pen.lineJoin = "round";
  return { pen, width, height };
}

/** @param {CanvasRenderingContext2D} pen @param {number[][]} points */
function line(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} radius */
function dot(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

/**
 * An arrow from (x, y), `length` to the right (to the left where negative).
 * @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} length
 */
function arrow(pen, x, y, length) {
  if (Math.abs(length) < 2) return;
  const tip = x + length;
  const back = Math.sign(length) * Math.min(7, Math.abs(length));
  line(pen, [[x, y], [tip, y]]);
  line(pen, [[tip - back, y - 5], [tip, y], [tip - back, y + 5]]);
}

/**
 * @typedef {{see: Record<string, number>, range: Record<string, {low: number, high: number}>, drive: number, push: number}} Look
 *   clean observations and their ranges by channel, and the first action and the push on it as shares of its largest value
 * @param {HTMLCanvasElement} canvas
 * @param {Look} look
 */
function cart(canvas, { see, range, drive, push }) {
  const { pen, width, height } = clear(canvas);
  const ground = height * 0.78;
  const scale = (width * 0.46) / range.position.high;
  const x = width / 2 + see.position * scale;
  const pole = height * 0.5;
  pen.strokeStyle = colour("line");
  pen.lineWidth = 2;
  line(pen, [[width * 0.04, ground], [width * 0.96, ground]]);
  for (let mark = -Math.floor(range.position.high); mark <= range.position.high; mark++) {
    line(pen, [[width / 2 + mark * scale, ground], [width / 2 + mark * scale, ground + 5]]);
  }
  pen.fillStyle = colour("soft");
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillText("0 m", width / 2, ground + 20);
  pen.fillStyle = colour("body");
  pen.beginPath();
  pen.roundRect(x - 32, ground - 26, 64, 20, 4);
  pen.fill();
  dot(pen, x - 18, ground - 5, 5);
  dot(pen, x + 18, ground - 5, 5);
  pen.strokeStyle = colour("sensor");
  pen.lineWidth = 8;
  line(pen, [[x, ground - 26], [x + pole * Math.sin(see.angle), ground - 26 - pole * Math.cos(see.angle)]]);
  pen.fillStyle = colour("text");
  dot(pen, x, ground - 26, 4);
  effort(pen, x, ground - 16, drive, push, 90);
}

/** @param {HTMLCanvasElement} canvas @param {Look} look */
function pendulum(canvas, { see, drive, push }) {
  const { pen, width, height } = clear(canvas);
  const [x, y, length] = [width / 2, height / 2, height * 0.38];
  pen.strokeStyle = colour("line");
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.arc(x, y, length, 0, 2 * Math.PI);
  pen.stroke();
  pen.strokeStyle = colour("sensor");
  pen.lineWidth = 10;
  line(pen, [[x, y], [x - length * see.sine, y - length * see.cosine]]);
  pen.fillStyle = colour("text");
  dot(pen, x, y, 5);
  turn(pen, x, y, 34, drive, colour("applied"));
  turn(pen, x, y, 46, push, colour("alarm"));
}

/**
 * A bent arrow, counter-clockwise for a positive share of the largest torque.
 * @param {CanvasRenderingContext2D} pen
 * @param {number} x @param {number} y @param {number} radius @param {number} share @param {string} ink
 */
function turn(pen, x, y, radius, share, ink) {
  if (Math.abs(share) < 0.02) return;
  const end = -Math.PI / 2 - share * 2.4;
  pen.strokeStyle = ink;
  pen.lineWidth = 3;
  pen.beginPath();
  pen.arc(x, y, radius, -Math.PI / 2, end, share > 0);
  pen.stroke();
  const [tipX, tipY] = [x + radius * Math.cos(end), y + radius * Math.sin(end)];
  const along = end - (Math.sign(share) * Math.PI) / 2; // the way the tip points
  const side = [along + 2.6, along - 2.6].map((way) => [tipX + 8 * Math.cos(way), tipY + 8 * Math.sin(way)]);
  line(pen, [side[0], [tipX, tipY], side[1]]);
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} drive @param {number} push @param {number} size */
function effort(pen, x, y, drive, push, size) {
  pen.lineWidth = 3;
  pen.strokeStyle = colour("applied");
  arrow(pen, x + Math.sign(drive) * 36, y, drive * size);
  pen.strokeStyle = colour("alarm");
  arrow(pen, x + Math.sign(push) * 36, y + 12, push * size);
}

/**
 * The drawing for a plant with such channels, or null.
 * @param {string[]} names
 * @returns {((canvas: HTMLCanvasElement, look: Look) => void) | null}
 */
export function drawing(names) {
  if (names.includes("position") && names.includes("angle")) return cart;
  if (names.includes("cosine") && names.includes("sine")) return pendulum;
  return null;
}

/**
 * A strip of the latest ticks: lines between `low` and `high`, a rule at `at`, and marks where something was wrong.
 * @param {HTMLCanvasElement} canvas
 * @param {{values: (number | null)[], ink: string, width: number}[]} lines null leaves a gap
 * @param {{low: number, high: number, span: number, rule?: number, marks?: boolean[]}} scale span: ticks across the strip
 */
export function strip(canvas, lines, { low, high, span, rule, marks = [] }) {
  const { pen, width, height } = clear(canvas);
  const across = (/** @type {number} */ k, /** @type {number} */ count) => width - ((count - 1 - k + 0.5) * width) / span;
  const up = (/** @type {number} */ value) => 4 + ((height - 8) * (high - Math.min(Math.max(value, low), high))) / (high - low || 1);
  if (rule !== undefined) {
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1;
    line(pen, [[0, up(rule)], [width, up(rule)]]);
  }
  pen.fillStyle = colour("alarm");
  marks.forEach((bad, k) => bad && pen.fillRect(across(k, marks.length) - width / span / 2, height - 3, Math.max(width / span, 1.5), 3));
  for (const { values, ink, width: thickness } of lines) {
    pen.strokeStyle = colour(ink);
    pen.lineWidth = thickness;
    pen.beginPath();
    let joined = false;
    values.forEach((value, k) => {
      if (value === null || !Number.isFinite(value)) joined = false;
      else if (joined) pen.lineTo(across(k, values.length), up(value));
      else pen.moveTo(across(k, values.length), up(value));
      joined = value !== null && Number.isFinite(value);
    });
    pen.stroke();
  }
}

/**
 * A track with a bar at every tick in which something acted.
 * @param {HTMLCanvasElement} canvas @param {boolean[]} acted @param {number} span @param {string} ink
 */
export function track(canvas, acted, span, ink) {
  const { pen, width, height } = clear(canvas);
  pen.fillStyle = colour("track");
  pen.fillRect(0, 5, width, height - 10);
  pen.fillStyle = colour(ink);
  acted.forEach((on, k) => {
    if (on) pen.fillRect(width - ((acted.length - k) * width) / span, 5, Math.max(width / span, 1) + 0.5, height - 10);
  });
}
