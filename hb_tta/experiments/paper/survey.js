"use strict";
const form = document.getElementById("survey");
const told = document.getElementById("told");
const key = "hb-tta survey " + form.dataset.survey;
const answers = () => Array.from(form.querySelectorAll("fieldset"), (one) => ({
  question: Number(one.dataset.question),
  chosen: Array.from(one.querySelectorAll("input[type=checkbox]"))
    .flatMap((box, place) => (box.checked ? [place] : [])),
  seen: one.dataset.seen === "yes",
}));
const count = () => {
  const its = answers();
  told.textContent = its.filter((one) => one.seen).length + " of " + its.length + " answered";
};
const keep = () => {
  try { localStorage.setItem(key, JSON.stringify(answers())); } catch (error) { /* a private window */ }
};
form.addEventListener("change", (event) => {
  const one = event.target.closest("fieldset");
  const boxes = one.querySelectorAll("input[type=checkbox]");
  const neither = one.querySelector("input[type=radio]");
  if (event.target === neither) boxes.forEach((box) => { box.checked = false; });
  else neither.checked = false;
  const any = neither.checked || Array.from(boxes).some((box) => box.checked);
  one.dataset.seen = any ? "yes" : "no";
  count();
  keep();
});
try {
  for (const said of JSON.parse(localStorage.getItem(key)) || []) {
    const one = form.querySelector('fieldset[data-question="' + said.question + '"]');
    one.querySelectorAll("input[type=checkbox]").forEach((box, place) => {
      box.checked = said.chosen.includes(place);
    });
    one.querySelector("input[type=radio]").checked = said.seen && said.chosen.length === 0;
    one.dataset.seen = said.seen ? "yes" : "no";
  }
} catch (error) { /* nothing was kept */ }
document.getElementById("save").addEventListener("click", () => {
  const left = answers().filter((one) => !one.seen).length;
  if (left) {
    told.textContent = left + " are not answered yet: choose one, both or neither.";
    form.querySelector('fieldset[data-seen="no"]').scrollIntoView();
    return;
  }
  const text = JSON.stringify({ survey: form.dataset.survey, answers: answers() }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "answers.json";
  link.click();
  told.textContent = "Saved as answers.json: send it to whoever gave you this page.";
});
count();
