// npm ollama and npm openai: chats whole and streamed, tools, schemas, vectors, errors, time, leaving.
import assert from "node:assert";
import { Ollama } from "ollama";
import OpenAI from "openai";

const url = process.env.GATEWAY;
const messages = [{ role: "user", content: "Say hello." }];
const texts = new Set();

const ollama = new Ollama({ host: url });
const model = (await ollama.list()).models[0].model;
const options = { temperature: 0, num_predict: 12 };
texts.add((await ollama.chat({ model, messages, options })).message.content);
let text = "";
for await (const part of await ollama.chat({ model, messages, options, stream: true })) {
  text += part.message.content;
}
texts.add(text);
await assert.rejects(ollama.show({ model: "nobody" }), /not found/);

const openai = new OpenAI({ baseURL: url + "/v1", apiKey: "none" });
const asked = { model, messages, temperature: 0, max_tokens: 12 };
texts.add((await openai.chat.completions.create(asked)).choices[0].message.content);
text = "";
for await (const chunk of await openai.chat.completions.create({ ...asked, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
texts.add(text);
await assert.rejects(
  openai.chat.completions.create({ ...asked, temperature: -1 }, { maxRetries: 0 }), /temperature/);
assert.equal(texts.size, 1, [...texts].join(" | "));

const on = {
  type: "object", properties: { on: { type: "boolean" } }, required: ["on"], additionalProperties: false,
};
const lamp = { type: "function", function: { name: "lamp", parameters: on } };
const told = await ollama.chat({ model, messages, format: on, options: { temperature: 0, num_predict: 60 } });
assert.equal(typeof JSON.parse(told.message.content).on, "boolean");
const offered = await ollama.chat({ model, messages, tools: [lamp], options });
assert(offered.message.content || offered.message.tool_calls);
const form = { type: "json_schema", json_schema: { name: "state", schema: on } };
const state = await openai.chat.completions.create(
  { model, messages, response_format: form, max_tokens: 200, temperature: 0 });
assert.equal(typeof JSON.parse(state.choices[0].message.content).on, "boolean");
const forced = { type: "function", function: { name: "lamp" } };
const called = await openai.chat.completions.create(
  { model, messages, tools: [lamp], tool_choice: forced, max_tokens: 200 });
assert.equal(called.choices[0].message.tool_calls[0].function.name, "lamp");

const vectors = process.env.VECTORS;
const found = (await new Ollama({ host: vectors }).embed({ model: "vectors", input: "a" })).embeddings;
const other = await new OpenAI({ baseURL: vectors + "/v1", apiKey: "none" }).embeddings.create(
  { model: "vectors", input: "a" });
assert.deepEqual(other.data[0].embedding.slice(0, 3).map(Math.fround), found[0].slice(0, 3).map(Math.fround));

await assert.rejects(
  openai.chat.completions.create({ model, messages }, { timeout: 50, maxRetries: 0 }), /timed out/);
const slow = new Ollama({
  host: url, fetch: (where, how) => fetch(where, { ...how, signal: AbortSignal.timeout(50) }) });
await assert.rejects(slow.chat({ model, messages }), /timeout|aborted/i);
const leaving = await openai.chat.completions.create({ model, messages, stream: true });
for await (const chunk of leaving) {
  leaving.controller.abort();
}
const left = await ollama.chat({ model, messages, stream: true });
await assert.rejects(async () => {
  for await (const part of left) {
    left.abort();
  }
}, /abort/i);
