// The page that upscales: choosing pictures, the options, and a card for every picture.

import { blob, json, send } from "./api.js";
import { announce, find, make, save, short, warn } from "./dom.js";
import { formatChoice, result } from "./files.js";
import { makeCard, watch } from "./jobs.js";
import { Viewer } from "./viewer.js";
import { zoomAddress } from "./zoom.js";

const NAMES = "arbiscale.names"; // of the pictures, which the server does not know
const chosen = new Map(); // {picture, name, thumbnail} by the picture's id
let server = null;

/** Prepares the page for what the server can do. */
export function prepareUpscale(info) {
  server = info;
  const megabytes = Math.round(info.limits.upload_bytes / 1e6);
  find("upload-limit").textContent = `Up to ${megabytes} MB and ${Math.round(info.limits.input_pixels / 1e6)} megapixels`;
  find("samples").max = info.limits.samples;
  find("restore-field").hidden = !info.upscale.restore;
  prepareChoice();
  prepareOptions();
  for (const one of info.examples) addExample(one);
}

/** Shows the jobs that the server still has for this page. */
export function restoreUpscaled(jobs) {
  for (const job of jobs) addCard(job, names()[job.request.picture] ?? "Picture");
}

/** Uploads an example, and returns the picture. */
export async function uploadExample(name) {
  const file = await blob(`/api/examples/${name}`);
  return upload(file, `${name}.png`);
}

function prepareChoice() {
  const [drop, files] = [find("drop"), find("files")];
  files.addEventListener("change", () => {
    take([...files.files]);
    files.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.remove("over");
    });
  }
  document.addEventListener("drop", (event) => {
    location.hash = "#upscale";
    take([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const found = [...event.clipboardData.files];
    if (found.length) location.hash = "#upscale";
    take(found);
  });
}

function prepareOptions() {
  const by = find("by");
  const update = () => {
    for (const part of document.querySelectorAll("[data-by]")) part.hidden = part.dataset.by !== by.value;
  };
  by.addEventListener("change", update);
  update();
  find("restore-own").addEventListener("change", (event) => (find("restore").disabled = event.target.checked));
  find("restore").addEventListener("input", (event) => (find("restore-shown").textContent = event.target.value));
  find("upscale-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}

function addExample({ name, title }) {
  const button = make("button", { type: "button", className: "thumb", title });
  button.setAttribute("aria-label", `Example: ${title}`);
  find("examples").append(make("li", {}, button));
  const file = blob(`/api/examples/${name}`);
  button.addEventListener("click", async () => {
    try {
      take([new File([await file], `${name}.png`, { type: "image/png" })]);
    } catch (error) {
      warn(error.message);
    }
  });
  file.then(
    (found) => button.append(make("img", { src: URL.createObjectURL(found), alt: "" })),
    (error) => warn(error.message),
  );
}

/** Uploads files, and adds them to those that are chosen. */
async function take(files) {
  const failed = [];
  for (const file of files) {
    try {
      await upload(file, file.name);
    } catch (error) {
      failed.push(`${file.name}: ${error.message}`);
    }
  }
  if (files.length) warn(failed.join(" "));
  if (files.length > failed.length) announce(`${chosen.size} pictures are chosen.`);
}

async function upload(file, name) {
  if (file.size > server.limits.upload_bytes) {
    throw new Error(`the file has ${Math.round(file.size / 1e6)} MB, more than the ${server.limits.upload_bytes / 1e6} MB that are taken.`);
  }
  const picture = await (await send("/api/pictures", { method: "POST", body: file })).json();
  const kept = names();
  kept[picture.id] = name;
  sessionStorage.setItem(NAMES, JSON.stringify(kept));
  choose(picture, name, file);
  return picture;
}

function names() {
  return JSON.parse(sessionStorage.getItem(NAMES) ?? "{}");
}

function choose(picture, name, file) {
  if (chosen.has(picture.id)) return;
  const thumbnail = make("img", { alt: "" });
  const address = URL.createObjectURL(file);
  thumbnail.src = address;
  thumbnail.addEventListener("error", () => (thumbnail.hidden = true)); // a format that browsers do not show
  const away = make("button", { type: "button", className: "plain", textContent: "✕" });
  away.setAttribute("aria-label", `Leave out ${name}`);
  const frames = picture.frames > 1 ? `, the first of ${picture.frames} frames` : "";
  const text = make("span", { textContent: `${name} · ${picture.width} × ${picture.height}${frames}` });
  const item = make("li", {}, thumbnail, text, away);
  away.addEventListener("click", () => {
    leaveOut(picture.id);
  });
  chosen.set(picture.id, { picture, name, item, address });
  find("chosen").append(item);
  updateButton();
}

function leaveOut(id) {
  const one = chosen.get(id);
  one.item.remove();
  URL.revokeObjectURL(one.address);
  chosen.delete(id);
  updateButton();
}

function updateButton() {
  const button = find("upscale-go");
  button.disabled = !chosen.size;
  button.textContent = chosen.size > 1 ? `Upscale ${chosen.size} pictures` : "Upscale";
}

function options() {
  const number = (id) => Number(find(id).value);
  const by = find("by").value;
  const target = {
    scale: () => ({ scale: number("scale") }),
    long_side: () => ({ long_side: number("long-side") }),
    size: () => ({ size: [number("height"), number("width")] }),
  }[by]();
  const restore = server.upscale.restore && !find("restore-own").checked ? { restore: number("restore") } : {};
  return { task: "upscale", ...target, samples: number("samples"), seed: number("upscale-seed"), ...restore };
}

async function submit() {
  const asked = options();
  for (const { picture, name } of [...chosen.values()]) {
    try {
      const job = await json("/api/jobs", { body: { ...asked, picture: picture.id } });
      leaveOut(picture.id);
      warn("");
      addCard(job, name);
    } catch (error) {
      warn(`${name}: ${error.message}`);
      return;
    }
  }
}

function addCard(job, name) {
  const asked = job.request;
  const size = `${job.size[1]} × ${job.size[0]} pixels`;
  const how = asked.scale || !(asked.size || asked.long_side) ? `×${short(asked.scale ?? 4)}, ` : "";
  const answers = asked.samples > 1 ? `, ${asked.samples} answers` : "";
  const card = makeCard(name, `${how}${size}, seed ${asked.seed}${answers}`, job, () => viewer?.close());
  let viewer = null;
  find("upscale-jobs").prepend(card.element);
  watch(job, async (now) => {
    card.show(now);
    if (now.state !== "done" || viewer) return;
    viewer = await showResult(card, now, name).catch((error) => warn(error.message));
    announce(`${name} is done.`);
  });
}

/** Fills the card of a job that is done, and returns its viewer. */
async function showResult(card, job, name) {
  const base = await json(`/api/views/${job.views[0]}`);
  const stage = make("div", { className: "stage" });
  const below = make("div", { className: "below" });
  card.body.append(stage, below);
  const anchor = { height: job.size[0], width: job.size[1] };
  let number = 0;
  const shown = { close: () => current.close() };
  let current = open();

  function open() {
    const label = `${name}: bicubic on the left, the model on the right. Arrow keys move, plus and minus zoom.`;
    const made = new Viewer(stage, { view: job.views[number], anchor, base, label });
    made.zoomBy(1 / made.zoom); // true pixels
    return made;
  }

  if (job.results > 1) below.append(answerChoice(job.results, (i) => {
    const { place, mode, share } = current;
    current.close();
    number = i;
    current = open();
    current.goTo(place);
    current.setMode(mode);
    current.setShare(share);
  }));
  const choice = formatChoice(server.formats);
  const keep = make("input", { type: "checkbox", checked: true });
  const zoom = make("button", { type: "button", textContent: "Zoom in" });
  zoom.addEventListener("click", () => (location.hash = zoomAddress(job.views[number], current.place, "model")));
  const download = make("button", { type: "button", className: "primary", textContent: "Download" });
  download.addEventListener("click", async () => {
    download.disabled = true;
    try {
      const file = await result(job, number, `${choice.query()}&metadata=${keep.checked}`);
      save(file, resultName(job, name, number, choice.ending()));
    } catch (error) {
      warn(error.message);
    }
    download.disabled = false;
  });
  const label = make("label", { className: "check" }, keep, "Keep metadata");
  below.append(make("div", { className: "row" }, zoom), make("div", { className: "row" }, label, ...choice.elements, download));
  return shown;
}

function answerChoice(count, pick) {
  const list = make("ul", { className: "answers", "aria-label": "Answers" });
  for (let i = 0; i < count; i++) {
    const button = make("button", { type: "button", textContent: String(i + 1), "aria-pressed": String(i === 0) });
    button.setAttribute("aria-label", `Answer ${i + 1}`);
    button.addEventListener("click", () => {
      for (const one of list.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button));
      pick(i);
    });
    list.append(make("li", {}, button));
  }
  return list;
}

/** Returns the name that the command line gives a result. */
function resultName(job, name, number, ending) {
  const asked = job.request;
  const stem = name.replace(/\.[^.]*$/, "");
  const how = asked.size || asked.long_side ? `${job.size[0]}x${job.size[1]}` : `x${short(asked.scale ?? 4, 4)}`;
  return `${stem}_${how}${job.results > 1 ? `_${number}` : ""}.${ending}`;
}
