// What more there is to an answer: where in a picture the model looked, and the nearest examples.
"use strict";

const DARK = 0.75; // how dark a picture becomes where nothing speaks for the class

function addMore(element, input) {
  const buttons = made("div", null, { class: "buttons" });
  const looks = model.modality === "picture" && !model.not_looked;
  if (looks) buttons.append(moreButton("Where it looked", input, element, "looked", showLooked));
  if (model.examples) buttons.append(moreButton("Nearest examples", input, element, "nearest", showNearest));
  if (buttons.children.length) element.append(buttons);
}

// What is not there, and how it can be had; below the answers.
function tellAbsent() {
  const parts = [];
  if (model.modality === "picture" && model.not_looked) parts.push(`Where the model looked is not shown: ${model.not_looked}`);
  if (!model.examples) parts.push("The nearest examples of the training data are shown where the service is started with them: topgraft serve MODEL --examples DATA.");
  at("absent").textContent = parts.join(" ");
  at("absent").hidden = parts.length === 0;
}

// A button that asks once, shows what comes, and then hides and shows it.
function moreButton(text, input, element, path, show) {
  const button = made("button", text, { type: "button", class: "second", "aria-expanded": "false" });
  button.append(made("span", ` of ${input.title}`, { class: "gone" }));
  let shownParts = null;
  let isAsking = false;
  button.addEventListener("click", async () => {
    if (isAsking) return;
    if (shownParts) {
      const open = button.getAttribute("aria-expanded") === "true";
      shownParts.forEach((part) => { part.hidden = open; });
      button.setAttribute("aria-expanded", String(!open));
      return;
    }
    isAsking = true;
    const mine = asked;
    say(`${text} of ${input.title} …`);
    try {
      const [row] = await answered(await fetch(path, requestOf([input])));
      if (mine !== asked) return; // there are other answers now
      if (row.error !== null) throw new Error(`${input.title}: ${row.error}`);
      const found = show(row, element, input);
      shownParts = found.parts;
      button.setAttribute("aria-expanded", "true");
      say(`${input.title}: ${found.words}`);
    } catch (error) {
      if (mine === asked) sayFailure(error);
    } finally {
      isAsking = false;
    }
  });
  return button;
}

// Where it looked

function showLooked(row, element) {
  const words = `for ${row.of} it looked ${row.where}.`;
  const text = made("p", `${words[0].toUpperCase()}${words.slice(1)} Bright is what speaks for it.`, { class: "words" });
  const parts = [text];
  const frame = element.querySelector(".picture");
  if (frame) {
    const canvas = made("canvas", null, { role: "img", "aria-label": `Over the picture: ${words}` });
    frame.append(canvas);
    draw(canvas, frame.querySelector("img"), row);
    parts.push(canvas);
  }
  if (isPart(row.seen)) text.textContent += " The network does not see the dark edges.";
  element.append(text);
  return { parts, words };
}

const isPart = (seen) => seen.left > 0 || seen.top > 0 || seen.right < 1 || seen.bottom < 1;

function draw(canvas, image, row) {
  const width = canvas.width = Math.max(1, Math.round(image.clientWidth * devicePixelRatio));
  const height = canvas.height = Math.max(1, Math.round(image.clientHeight * devicePixelRatio));
  const small = document.createElement("canvas");
  small.width = row.map[0].length;
  small.height = row.map.length;
  const inside = small.getContext("2d");
  const places = inside.createImageData(small.width, small.height);
  row.map.flat().forEach((share, i) => { places.data[4 * i + 3] = Math.round(255 * DARK * (1 - share)); });
  inside.putImageData(places, 0, 0);
  const { left, top, right, bottom } = row.seen;
  const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
  const over = canvas.getContext("2d");
  over.fillStyle = `rgba(0, 0, 0, ${DARK})`;
  over.fillRect(0, 0, width, height);
  over.clearRect(...box);
  over.drawImage(small, ...box);
}

// Nearest examples

function showNearest(row, element) {
  const list = made("ol", null, { class: "nearest", "aria-label": "Nearest examples" });
  list.append(...row.nearest.map(exampleOf));
  element.append(list);
  const labels = row.nearest.map((one) => one.label ?? one.name).join(", ");
  return { parts: [list], words: `nearest examples: ${labels}.` };
}

function exampleOf(one) {
  const item = made("li", null);
  if (one.picture) item.append(made("img", null, { src: one.picture, alt: `The example ${one.name}` }));
  const about = made("div", null);
  if (one.label !== null) about.append(made("strong", one.label));
  const content = one.text ?? (one.row ? inWordsOfRow(one.row) : null);
  if (content !== null) about.append(made("p", content));
  about.append(made("p", `${one.name}, similarity ${one.similarity.toFixed(2)}`, { class: "faint" }));
  item.append(about);
  return item;
}
