"use strict";
// Filters the gallery, and shows a question's images when it is opened. The filters stand in the
// address behind "#", so that a view of the page can be kept: #category=count&change=fixed

const images = JSON.parse(document.getElementById("images").textContent);
const questions = [...document.querySelectorAll("details.question")];
const filters = document.getElementById("filters");
const compared = filters.dataset.runs.split(" ");
// What a choice means in terms of what became of a question.
const meanings = {
  "": ["fixed", "broken", "right", "wrong", "better", "worse", "same"],
  fixed: ["fixed"],
  broken: ["broken"],
  better: ["better"],
  worse: ["worse"],
  right: ["right", "fixed"],
  wrong: ["wrong", "broken"],
};

function show(root, selector) {
  for (const image of root.querySelectorAll(selector)) {
    image.src = images[image.dataset.image];
    image.addEventListener("load", () => {
      image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 128);
    });
    image.removeAttribute("data-image");
  }
}

function matches(question, category, run, change) {
  if (category && question.dataset.category !== category) return false;
  const changes = question.dataset.changes.split(" ");
  const runs = run ? [run] : compared;
  return runs.some((number) => meanings[change].includes(changes[number]));
}

function choices() {
  const chosen = new FormData(filters);
  return ["category", "run", "change"].map((name) => chosen.get(name) || "");
}

function update() {
  const [category, run, change] = choices();
  let shown = 0;
  for (const question of questions) {
    question.hidden = !matches(question, category, run, change);
    shown += !question.hidden;
  }
  for (const label of filters.querySelectorAll("fieldset label")) {
    const value = label.querySelector("input").value;
    const count = questions.filter((one) => matches(one, category, run, value)).length;
    label.querySelector("output").textContent = count;
  }
  document.getElementById("shown").textContent = `${shown} of ${questions.length} shown`;
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries({ category, run, change })) {
    if (value) kept.set(name, value);
  }
  history.replaceState(null, "", `#${kept}`);
}

function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const name of ["category", "run", "change"]) {
    const control = filters.elements.namedItem(name);
    if (control && kept.has(name)) control.value = kept.get(name);
  }
  update();
}

for (const question of questions) {
  question.addEventListener("toggle", () => show(question, "img[data-image]"), { once: true });
}
filters.addEventListener("change", update);
filters.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", restore);
show(document, "img.thumbnail[data-image]");
restore();
