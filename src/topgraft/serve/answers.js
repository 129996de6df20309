// What the model says, as the page of `topgraft serve` shows it.
"use strict";

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

// Addresses of files that the answers show: they end with the answers.
const addresses = [];

function addressOf(file) {
  const address = URL.createObjectURL(file);
  addresses.push(address);
  return address;
}

function forget() {
  at("answers").replaceChildren();
  addresses.splice(0).forEach((address) => URL.revokeObjectURL(address));
}

function pictureOf(input) {
  const frame = made("div", null, { class: "picture" });
  const image = made("img", null, { alt: `The picture ${input.title}` });
  image.addEventListener("error", () => frame.remove()); // a format that this browser does not show
  image.src = addressOf(input.file);
  frame.append(image);
  return frame;
}

function soundOf(input) {
  const sound = made("audio", null, { controls: "", "aria-label": `The sound ${input.title}` });
  sound.addEventListener("error", () => sound.replaceWith(made("p", "This browser can't play it.", { class: "faint" })));
  sound.src = addressOf(input.file);
  return sound;
}

function answer(row, input) {
  const element = made("article", null, { class: "answer" });
  element.append(made("h2", input.title));
  if (input.file) element.append(model.modality === "sound" ? soundOf(input) : pictureOf(input));
  if (row.error !== null) {
    element.append(made("p", `No prediction: ${row.error}`, { class: "sick" }));
    return element;
  }
  element.append(made("p", inWords(row), { class: "said" }));
  if (model.outputs.length > 1) element.append(numberTable(row));
  if (!model.outputs.length) element.append(...shares(row));
  addMore(element, input);
  return element;
}

// Classes by probability, and the rest of them folded away.
function shares(row) {
  const pairs = model.classes.map((name) => [name, row[`p_${name}`]]).sort((a, b) => b[1] - a[1]);
  const given = ([name, share]) => (model.separator ? share > 0.5 : name === row.label);
  const first = table(pairs.slice(0, SHOWN), given);
  if (pairs.length <= SHOWN) return [first];
  const rest = made("details", null);
  rest.append(made("summary", `The other ${pairs.length - SHOWN} ${model.separator ? "labels" : "classes"}`), table(pairs.slice(SHOWN), given));
  return [first, rest];
}

function told(rows, inputs) {
  if (rows.length > 1) {
    const failed = rows.filter((row) => row.error !== null).length;
    return `${rows.length} predictions${failed ? `, ${failed} of them without an answer` : ""}; they follow below.`;
  }
  const [row] = rows;
  const [{ title }] = inputs;
  return row.error !== null ? `${title}: no prediction (${row.error})` : `${title}: ${inWords(row)}`;
}

async function ask(inputs) {
  asked += 1;
  const mine = asked;
  forget();
  tellNotes([]);
  at("absent").hidden = true;
  at("answers").setAttribute("aria-busy", "true");
  say(`Predicting ${inputs.length === 1 ? inputs[0].title : `${inputs.length} inputs`} …`);
  try {
    const response = await fetch("predict", requestOf(inputs));
    const rows = await answered(response);
    if (mine !== asked) return;
    at("answers").append(...rows.map((row, i) => answer(row, inputs[i])));
    tellNotes(JSON.parse(response.headers.get("topgraft-notes") || "[]"));
    tellAbsent();
    say(told(rows, inputs));
  } catch (error) {
    if (mine === asked) sayFailure(error);
  } finally {
    if (mine === asked) at("answers").removeAttribute("aria-busy");
  }
}
