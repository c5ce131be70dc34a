// page.js - the program of the gateway's page: status, models, a chat that streams.
// Everything that comes from the model or the service is put in as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const messages = [];
let running = null;  // the AbortController of the answer that streams

function headers() {
  const key = sessionStorage.getItem("key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: "Bearer " + key } : {}) };
}

async function get(path) {
  const answer = await fetch(path, { headers: headers() });
  if (answer.status === 401) byId("locked").hidden = false;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message || body.error);
  return body;
}

async function showStatus() {
  try {
    await get("health");
    const [props, slots] = [await get("props"), await get("slots")];
    const busy = slots.filter((slot) => slot.is_processing).length;
    byId("locked").hidden = true;
    byId("status").textContent =
      props.model_alias + " is ready, context " + props.default_generation_settings.n_ctx +
      " tokens, " + busy + " of " + slots.length + " places in use";
    const models = (await get("v1/models")).data.map((model) => {
      const item = document.createElement("li");
      item.textContent = model.id + (model.status.value === "loaded" ? " (loaded)" : "");
      return item;
    });
    byId("models").replaceChildren(...models);
  } catch (error) {
    byId("status").textContent = error.message;
  }
}

function bubble(kind, text) {
  const box = document.createElement("div");
  box.className = "message " + kind;
  box.textContent = text;
  byId("conversation").append(box);
  return box;
}

// Call take with the object of each event of a stream.
async function readEvents(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("data: {")) take(JSON.parse(event.slice(6)));
    }
  }
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  bubble("user", question);
  const box = bubble("assistant", "");
  const thinking = document.createElement("span");
  thinking.className = "thinking";
  const text = document.createElement("span");
  box.append(thinking, text);
  running = new AbortController();
  setBusy(true);
  try {
    const answer = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headers(),
      signal: running.signal,
      body: JSON.stringify({ messages, stream: true }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    await readEvents(answer.body, (event) => {
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices.length ? event.choices[0].delta : {};
      thinking.textContent += delta.reasoning_content || "";
      text.textContent += delta.content || "";
      box.scrollIntoView({ block: "end" });
    });
  } catch (error) {
    if (error.name !== "AbortError") bubble("error", error.message);
  }
  messages.push({ role: "assistant", content: text.textContent });
  running = null;
  setBusy(false);
  showStatus();
}

function setBusy(busy) {
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (!question || running) return;
  byId("question").value = "";
  ask(question);
});
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
byId("stop").addEventListener("click", () => running && running.abort());
byId("unlock").addEventListener("click", () => {
  sessionStorage.setItem("key", byId("key").value);
  showStatus();
});
showStatus();
setInterval(() => document.hidden || showStatus(), 10000);
