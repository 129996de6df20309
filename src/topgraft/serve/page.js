// The page of `topgraft serve`. Names of classes and files are text here, never markup.
"use strict";

const SHOWN = 10; // classes that are shown before the rest is folded away
const at = (id) => document.getElementById(id);
let model = null;
let asked = 0; // so that an answer to an earlier question never replaces a later one

function made(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== null) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("sick", isError);
}

async function answered(response) {
  let document = null;
  try {
    document = await response.json();
  } catch {
    throw new Error(`The service answered ${response.status} without saying why.`);
  }
  if (!response.ok) throw new Error(document.error || `The service answered ${response.status}.`);
  return document;
}

// Predictions

function table(pairs, given) {
  const element = made("table", null);
  const head = made("tr", null);
  head.append(
    made("th", model.separator ? "label" : "class", { scope: "col" }), made("th", "", { scope: "col" }), made("th", "probability", { scope: "col" }));
  head.children[1].append(made("span", "bar", { class: "gone" }));
  const body = made("tbody", null);
  for (const [name, share] of pairs) {
    const row = made("tr", null, given([name, share]) ? { class: "best" } : {});
    const bar = made("div", null, { class: "bar" });
    bar.style.width = `${100 * share}%`;
    const cell = made("td", null, { "aria-hidden": "true" });
    cell.append(bar);
    row.append(made("th", name, { scope: "row" }), cell, made("td", percent(share), { class: "number" }));
    body.append(row);
  }
  element.append(made("thead", null), body);
  element.tHead.append(head);
  return element;
}

// One row a predicted number; the column of a single one is called "prediction" in the reply.
function numbers(row) {
  return model.outputs.map((name) => [name, row[model.outputs.length === 1 ? "prediction" : `prediction_${name}`]]);
}

const shown = (number) => number.toLocaleString("en", { maximumSignificantDigits: 6 });

function numberTable(row) {
  const element = made("table", null);
  const head = made("tr", null);
  head.append(made("th", "number", { scope: "col" }), made("th", "prediction", { scope: "col" }));
  const body = made("tbody", null);
  for (const [name, number] of numbers(row)) {
    const line = made("tr", null);
    line.append(made("th", name, { scope: "row" }), made("td", shown(number), { class: "number" }));
    body.append(line);
  }
  element.append(made("thead", null), body);
  element.tHead.append(head);
  return element;
}

function inWords(row) {
  if (model.separator) return row.label || "no label";
  if (!model.outputs.length) return `${row.label}, ${percent(row.confidence)}`;
  return numbers(row).map(([name, number]) => `${name} ${shown(number)}`).join(", ");
}

function answer(row, title, picture) {
  const element = made("article", null, { class: "answer" });
  element.append(made("h2", title));
  if (picture) {
    const image = made("img", null, { alt: `The picture ${title}` });
    image.addEventListener("error", () => image.remove()); // a format that this browser does not show
    image.addEventListener("load", () => URL.revokeObjectURL(image.src));
    image.src = URL.createObjectURL(picture);
    element.append(image);
  }
  if (row.error !== null) {
    element.append(made("p", `No prediction: ${row.error}`, { class: "sick" }));
    return element;
  }
  element.append(made("p", inWords(row), { class: "said" }));
  if (model.outputs.length) {
    if (model.outputs.length > 1) element.append(numberTable(row));
    return element;
  }
  const pairs = model.classes.map((name) => [name, row[`p_${name}`]]).sort((a, b) => b[1] - a[1]);
  const given = ([name, share]) => (model.separator ? share > 0.5 : name === row.label);
  element.append(table(pairs.slice(0, SHOWN), given));
  if (pairs.length > SHOWN) {
    const rest = made("details", null);
    rest.append(made("summary", `The other ${pairs.length - SHOWN} ${model.separator ? "labels" : "classes"}`), table(pairs.slice(SHOWN), given));
    element.append(rest);
  }
  return element;
}

function told(rows, titles) {
  if (rows.length > 1) {
    const failed = rows.filter((row) => row.error !== null).length;
    return `${rows.length} predictions${failed ? `, ${failed} of them without an answer` : ""}; they follow below.`;
  }
  const [row] = rows;
  return row.error !== null ? `${titles[0]}: no prediction (${row.error})` : `${titles[0]}: ${inWords(row)}`;
}

async function ask(request, titles, pictures = []) {
  asked += 1;
  const mine = asked;
  at("answers").replaceChildren();
  at("answers").setAttribute("aria-busy", "true");
  say(`Predicting ${titles.length === 1 ? titles[0] : `${titles.length} inputs`} …`);
  try {
    const rows = await answered(await fetch("predict", { method: "POST", ...request }));
    if (mine !== asked) return;
    at("answers").append(...rows.map((row, i) => answer(row, titles[i], pictures[i])));
    say(told(rows, titles));
  } catch (error) {
    if (mine !== asked) return;
    say(error instanceof TypeError ? "The service can't be reached." : error.message, true);
  } finally {
    if (mine === asked) at("answers").removeAttribute("aria-busy");
  }
}

// Pictures

function askPictures(files) {
  const pictures = [...files];
  if (!pictures.length) return;
  const bytes = pictures.reduce((sum, file) => sum + file.size, 0);
  if (pictures.length > model.limits.inputs) {
    say(`${pictures.length} pictures are more than the ${model.limits.inputs} of one request.`, true);
    return;
  }
  if (bytes > model.limits.body) {
    say(`${(bytes / 1e6).toFixed(1)} MB are more than the ${model.limits.body / 1e6} MB of one request.`, true);
    return;
  }
  const form = new FormData();
  for (const picture of pictures) form.append("files", picture);
  ask({ body: form }, pictures.map((picture) => picture.name), pictures);
}

function takePictures() {
  const drop = at("drop");
  at("files").addEventListener("change", (event) => askPictures(event.target.files));
  at("files").addEventListener("click", (event) => { event.target.value = ""; }); // the same file may be chosen again
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    askPictures(event.dataTransfer.files);
  });
  at("pictures").addEventListener("submit", (event) => event.preventDefault());
  at("pictures").hidden = false;
}

// Texts and arrays

function askWords() {
  const written = at("text").value;
  if (!written.trim()) {
    say("Nothing to predict: the field is empty.", true);
    at("text").focus();
    return;
  }
  let body = { texts: [written] };
  if (model.modality === "array") {
    try {
      body = { arrays: [JSON.parse(written)] };
    } catch (error) {
      say(`This is no JSON list: ${error.message}`, true);
      return;
    }
  }
  const title = written.length > 60 ? `${written.slice(0, 60)}…` : written;
  ask({ body: JSON.stringify(body), headers: { "content-type": "application/json" } }, [title]);
}

function takeWords() {
  const isArray = model.modality === "array";
  at("words-label").textContent = isArray ? "Array" : "Text";
  at("words-help").textContent = isArray
    ? "One example as nested lists of numbers, such as [[1, 2], [3, 4]]. Ctrl+Enter predicts."
    : "One text; Ctrl+Enter predicts.";
  at("words").addEventListener("submit", (event) => { event.preventDefault(); askWords(); });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); askWords(); }
  });
  at("words").hidden = false;
}

// The model

function about() {
  const kinds = { picture: "pictures", text: "texts", array: "arrays" };
  const kept = `Keeps ${model.keep} of ${model.blocks} blocks of ${model.backbone}.`;
  const names = model.classes.slice(0, SHOWN).join(", ");
  const more = model.classes.length > SHOWN ? ` and ${model.classes.length - SHOWN} more` : "";
  const score = model.score ? ` Its ${model.score.metric} was ${percent(model.score.value)} on ${model.score.n} untouched examples.` : "";
  if (model.outputs.length) return `Predicts ${model.outputs.join(", ")} of ${kinds[model.modality]}. ${kept}${score}`;
  return `Tells ${kinds[model.modality]} of ${model.classes.length} classes apart: ${names}${more}. ${kept}${score}`;
}

async function start() {
  try {
    model = await answered(await fetch("model"));
  } catch (error) {
    at("about").textContent = "";
    say(error instanceof TypeError ? "The service can't be reached." : error.message, true);
    return;
  }
  document.title = `${model.name} – Topgraft`;
  at("name").textContent = model.name;
  at("about").textContent = about();
  if (model.modality === "picture") takePictures(); else takeWords();
}

start();
