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

function sayFailure(error) {
  say(error instanceof TypeError ? "The service can't be reached." : error.message, true);
}

function tellNotes(notes) {
  at("notes").textContent = notes.join(" ");
  at("notes").hidden = notes.length === 0;
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

// The model

function about() {
  const kinds = { picture: "pictures", text: model.pairs ? "pairs of texts" : "texts", sound: "sounds", array: "arrays", row: "rows" };
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
    sayFailure(error);
    return;
  }
  document.title = `${model.name} – Topgraft`;
  at("name").textContent = model.name;
  at("about").textContent = about();
  if (takesFiles()) takeFiles(); else if (model.modality === "row") takeRows(); else takeWords();
}

start();
