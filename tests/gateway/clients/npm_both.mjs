// npm ollama and npm openai: list, a chat whole and streamed, an error.
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
