"use strict";
// Asks the server that this page is from, as any client of OpenAI's API does, and shows what is
// told on the way. All that comes from there is put in as text.

const form = document.getElementById("ask");
const drop = document.getElementById("drop");
const file = document.getElementById("file");
const picture = document.getElementById("picture");
const state = document.getElementById("state");
const LARGEST = 1e8;

let running = null;
let read = Promise.resolve();

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function show(id) {
  const section = document.getElementById(id);
  section.hidden = false;
  return section;
}

function percent(share) {
  return `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)}\u00a0%`;
}

// ── The picture ──────────────────────────────────────────────────────────────────────────────────

function take(chosen) {
  if (!chosen) return;
  if (chosen.size > LARGEST) return fail("The picture is too large.");
  read = new Promise((done) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      picture.src = reader.result;
      picture.hidden = false;
      document.getElementById("hint").hidden = true;
      done();
    });
    reader.readAsDataURL(chosen);
  });
}

picture.addEventListener("load", () => {
  picture.classList.toggle("small", Math.max(picture.naturalWidth, picture.naturalHeight) <= 128);
});
file.addEventListener("change", () => take(file.files[0]));
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") file.click();
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
drop.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
addEventListener("paste", (event) => take(event.clipboardData.files[0]));

// ── What is asked ────────────────────────────────────────────────────────────────────────────────

function body() {
  const said = new FormData(form);
  const ours = { progress: true, pictures: true, augment: !said.get("plain") };
  for (const name of ["n", "seed"]) {
    if (said.get(name)) ours[name] = Number(said.get(name));
  }
  if (said.get("always")) ours.gate = null;
  const content = [{ type: "text", text: said.get("question") }];
  if (!picture.hidden) content.unshift({ type: "image_url", image_url: { url: picture.src } });
  return { messages: [{ role: "user", content }], stream: true, hb_tta: ours };
}

function heads() {
  const key = new FormData(form).get("key");
  const given = key ? { Authorization: `Bearer ${key}` } : {};
  return { "Content-Type": "application/json", ...given };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

async function ask() {
  running?.abort();
  const mine = (running = new AbortController());
  clear();
  state.textContent = "waiting …";
  try {
    await read;
    const request = { method: "POST", headers: heads(), body: JSON.stringify(body()) };
    const response = await fetch("v1/chat/completions", { ...request, signal: mine.signal });
    if (!response.ok) return fail((await response.json()).error.message);
    for await (const event of events(response)) tell(event);
  } catch (error) {
    if (mine === running) fail(`The server cannot be reached (${error.message}).`);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});

// ── What is told ─────────────────────────────────────────────────────────────────────────────────

function clear() {
  for (const one of document.querySelectorAll("#found section")) one.hidden = true;
  for (const part of document.querySelectorAll("#found .said, #found .how, #found .views")) {
    part.textContent = "";
  }
  document.getElementById("described").replaceChildren(element("h2", "", "description"));
}

function fail(sentence) {
  state.textContent = "";
  show("wrong").textContent = sentence;
}

function tell(event) {
  if (event.error) return fail(event.error.message);
  const [choice] = event.choices;
  if (choice?.delta.content) {
    state.textContent = "answering …";
    show("answer").querySelector(".said").textContent += choice.delta.content;
  }
  if (event.hb_tta?.stage) stages[event.hb_tta.stage](event.hb_tta);
  else if (event.hb_tta) end(event.hb_tta);
}

const stages = {
  plain(told) {
    const section = show("plain");
    section.querySelector(".said").textContent = told.answer;
    const then = told.passed ? "not sure enough: views are made" : "sure enough: no views";
    section.querySelector(".how").textContent = `${percent(told.p)} sure; ${then}`;
    if (told.passed) state.textContent = "describing …";
  },
  described(told) {
    describe(told.description);
    state.textContent = "drawing …";
  },
  views(told) {
    draw(told.views);
    state.textContent = "looking at the views …";
  },
};

function describe(text) {
  show("described").append(element("blockquote", "", text || "nothing"));
}

function draw(views) {
  const section = show("views");
  const shown = views.filter((one) => one.kept).length;
  const told = views.length ? `${shown} of ${views.length} shown to the model` : "none";
  section.querySelector(".how").textContent = told;
  section.querySelector(".views").replaceChildren(...views.map(figure));
}

function figure(view) {
  const made = element("figure", view.kept ? "" : "dropped");
  const name = view.kept ? `view ${view.view + 1}` : "not shown";
  // By its number: a seed may have more digits than JavaScript's numbers.
  made.dataset.view = `${view.image}/${view.view}`;
  made.append(view.png ? image(view.png, name) : element("span", "gone", "gone"));
  const words = element("figcaption", "", view.score === null ? name : `${name}, score ${view.score.toFixed(2)}`);
  made.append(words);
  return made;
}

function image(address, label) {
  const made = element("img", "small");
  made.alt = label;
  made.src = address;
  made.addEventListener("load", () => {
    made.classList.toggle("small", Math.max(made.naturalWidth, made.naturalHeight) <= 128);
  });
  return made;
}

function end(told) {
  state.textContent = "";
  if (told.description && document.getElementById("described").hidden) {
    [told.description].flat().forEach(describe);
  }
  if (told.views.length && document.getElementById("views").hidden) draw(told.views);
  for (const answer of told.answers.filter((one) => one.view !== null && !one.words)) {
    const place = document.querySelector(`figure[data-view="0/${answer.view}"] figcaption`);
    if (place) place.append(...says(answer));
  }
  const real = told.answers.find((one) => one.view === null);
  if (real?.first !== undefined && document.getElementById("plain").hidden && told.views.length) {
    const section = show("plain");
    section.querySelector(".said").textContent = real.first.trim();
    section.querySelector(".how").textContent = `begins so, ${percent(real.share)}`;
  }
  const how = document.querySelector("#answer .how");
  const shown = told.views.filter((one) => one.kept).length;
  const from = shown ? `from the picture and ${shown} views` : "from the picture alone";
  const share = told.combined ? `; begins “${told.combined.first.trim()}”, ${percent(told.combined.share)}` : "";
  how.textContent = [from + share, ...told.warnings].join("\n");
}

function says(answer) {
  const words = (answer.text ?? answer.first).trim();
  const said = element("b", "", answer.share === undefined ? words : `${words} ${percent(answer.share)}`);
  if (answer.share === undefined) return [said];
  const bar = element("span", "bar");
  bar.style.setProperty("--share", answer.share);
  return [said, bar];
}
