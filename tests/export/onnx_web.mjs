// Runs models in onnxruntime-web's WebAssembly provider, as a browser does, and prints their outputs.
//
// node onnx_web.mjs CASES.json: a list of {model, steps: [{name: {type, data, shape}}], feedback: {output: input}}; prints, as JSON, a
// list a case of the outputs of every step.
import fs from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.argv[1]);
const ort = require("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const arrays = { float64: Float64Array, int32: Int32Array, int16: Int16Array };
const tensor = ({ type, data, shape }) => new ort.Tensor(type, arrays[type].from(data), shape);

const results = [];
for (const { model, steps, feedback } of JSON.parse(fs.readFileSync(process.argv[2]))) {
  const session = await ort.InferenceSession.create(fs.readFileSync(model), { executionProviders: ["wasm"] });
  const carried = {};
  const outputs = [];
  for (const step of steps) {
    const feeds = Object.fromEntries(Object.entries(step).map(([name, values]) => [name, tensor(values)]));
    const answer = await session.run({ ...feeds, ...carried });
    for (const [output, input] of Object.entries(feedback)) carried[input] = answer[output];
    outputs.push(Object.fromEntries(Object.entries(answer).map(([name, value]) => [name, Array.from(value.data, Number)])));
  }
  results.push(outputs);
}
console.log(JSON.stringify(results));
