/* Runs ticks through a bundle's WebAssembly files: node batch.mjs BUNDLE/wasm FLAGS OBSERVATIONS OUT.
 * FLAGS is u32[steps], OBSERVATIONS i32[steps][n]; OUT becomes i32[steps][raw m, applied m, outcome, state digest].
 * Prints the seconds that the steps took and node's version. */
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [folder, flagsAt, observationsAt, out] = process.argv.slice(2);
const base = pathToFileURL(`${folder}/`);
const { Policy } = await import(new URL("puffer_edge.mjs", base).href);
const policy = await Policy.load({ image: new URL("policy.bin", base) });
/** @param {string} path */
const words = async (path) => new Int32Array(new Uint8Array(await readFile(path)).buffer);
const [flags, observations] = await Promise.all([words(flagsAt), words(observationsAt)]);
const n = policy.contract.observations.length;
const m = policy.contract.actions.length;
const rows = new Int32Array(flags.length * (2 * m + 2));
const began = performance.now();
for (let k = 0, at = 0; k < flags.length; k++) {
  const { raw, applied, outcome } = policy.step(flags[k], observations.subarray(k * n, (k + 1) * n));
  rows.set(raw, at);
  rows.set(applied, at + m);
  rows[at + 2 * m] = outcome;
  rows[at + 2 * m + 1] = policy.state;
  at += 2 * m + 2;
}
const seconds = (performance.now() - began) / 1000;
await writeFile(out, rows);
console.log(JSON.stringify({ seconds, node: process.version }));
