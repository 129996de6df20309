// What a person gives: files, a text, an array, or the cells of a row.
"use strict";

const KEYS = { text: "texts", array: "arrays", row: "rows" };
const WORDS = 60; // letters of a title
const takesFiles = () => model.modality === "picture" || model.modality === "sound";

// Inputs as the service takes them: each has a title, and a file or a value.
function requestOf(inputs) {
  if (takesFiles()) {
    const form = new FormData();
    for (const input of inputs) form.append("files", input.file);
    return { method: "POST", body: form };
  }
  const body = JSON.stringify({ [KEYS[model.modality]]: inputs.map((input) => input.value) });
  return { method: "POST", body, headers: { "content-type": "application/json" } };
}

const shortened = (text) => (text.length > WORDS ? `${text.slice(0, WORDS)}…` : text);

// Pictures and sounds

function askFiles(given) {
  const files = [...given];
  if (!files.length) return;
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  if (files.length > model.limits.inputs) {
    say(`${files.length} ${model.modality}s are more than the ${model.limits.inputs} of one request.`, true);
    return;
  }
  if (bytes > model.limits.body) {
    say(`${(bytes / 1e6).toFixed(1)} MB are more than the ${model.limits.body / 1e6} MB of one request.`, true);
    return;
  }
  ask(files.map((file) => ({ title: file.name, file })));
}

function takeFiles() {
  const drop = at("drop");
  at("files-label").textContent = `Choose ${model.modality}s, or drop them here`;
  at("files").accept = model.modality === "sound" ? "audio/*" : "image/*";
  at("files").addEventListener("change", (event) => askFiles(event.target.files));
  at("files").addEventListener("click", (event) => { event.target.value = ""; }); // the same file may be chosen again
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    askFiles(event.dataTransfer.files);
  });
  at("uploads").addEventListener("submit", (event) => event.preventDefault());
  at("uploads").hidden = false;
}

// Texts and arrays

function askWords() {
  const fields = model.pairs ? ["text", "second-text"] : ["text"];
  const texts = fields.map((id) => at(id).value);
  const empty = texts.findIndex((text) => !text.trim());
  if (empty >= 0) {
    say(`Nothing to predict: ${model.pairs ? `the ${["first", "second"][empty]} text` : "the field"} is empty.`, true);
    at(fields[empty]).focus();
    return;
  }
  const written = texts.join(" | ");
  let value = model.pairs ? texts : written;
  if (model.modality === "array") {
    try {
      value = JSON.parse(written);
    } catch (error) {
      say(`This is no JSON list: ${error.message}`, true);
      return;
    }
  }
  ask([{ title: shortened(written), value }]);
}

function takeWords() {
  const isArray = model.modality === "array";
  at("words-label").textContent = isArray ? "Array" : model.pairs ? "First text" : "Text";
  at("second").hidden = !model.pairs;
  at("words-help").textContent = isArray
    ? "One example as nested lists of numbers, such as [[1, 2], [3, 4]]. Ctrl+Enter predicts."
    : `${model.pairs ? "A pair of texts" : "One text"}; Ctrl+Enter predicts.`;
  at("words").addEventListener("submit", (event) => { event.preventDefault(); askWords(); });
  at("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); askWords(); }
  });
  at("words").hidden = false;
}

// Rows: a field for each column

function fieldOf(column, i) {
  const field = made("div", null);
  const id = `cell-${i}`;
  const about = made("p", null, { class: "faint", id: `${id}-about` });
  let input = null;
  if (column.kind === "category" && column.names.length) {
    input = made("select", null, { id });
    input.append(made("option", "missing", { value: "" }), ...column.names.map((name) => made("option", name, { value: name })));
    about.textContent = `${column.names.length} known`;
  } else {
    input = made("input", null, { id, type: "text", autocomplete: "off" });
    if (column.kind === "number") {
      input.inputMode = "decimal";
      about.textContent = `number, on average ${column.mean.toPrecision(3)}`;
    }
  }
  input.setAttribute("aria-describedby", about.id);
  field.append(made("label", column.name, { for: id }), input, about);
  return field;
}

const inWordsOfRow = (row) => Object.entries(row).filter(([, cell]) => cell !== null).map(([name, cell]) => `${name} ${cell}`).join(", ");

function askRow() {
  const row = {};
  model.columns.forEach((column, i) => { row[column.name] = at(`cell-${i}`).value || null; });
  if (Object.values(row).every((cell) => cell === null)) {
    say("Nothing to predict: every field is empty.", true);
    at("cell-0").focus();
    return;
  }
  ask([{ title: shortened(inWordsOfRow(row)), value: row }]);
}

function takeRows() {
  at("fields").append(...model.columns.map(fieldOf));
  at("cells").addEventListener("submit", (event) => { event.preventDefault(); askRow(); });
  at("cells").hidden = false;
}
