// The page that generates: a seed, a grid of images, any of which opens in the zoom view.

import { blob, json, windowPath } from "./api.js";
import { announce, find, make, save, warn } from "./dom.js";
import { formatChoice, result } from "./files.js";
import { makeCard, watch } from "./jobs.js";
import { zoomAddress } from "./zoom.js";

const SHOWN = 256; // pixels a side of an image in the grid
let server = null;

/** Prepares the page for what the server can do. */
export function prepareGenerate(info) {
  server = info;
  find("num").max = info.limits.images;
  find("dice").addEventListener("click", () => (find("generate-seed").value = randomSeed()));
  find("generate-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const side = Number(find("generate-size").value);
    const [seed, num] = [Number(find("generate-seed").value), Number(find("num").value)];
    try {
      addCard(await json("/api/jobs", { body: { task: "generate", seed, num, size: [side, side] } }));
      warn("");
    } catch (error) {
      warn(error.message);
    }
  });
}

/** Returns a random seed that is short enough to be written down. */
export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
}

/** Shows the jobs that the server still has for this page. */
export function restoreGenerated(jobs) {
  for (const job of jobs) addCard(job);
}

function addCard(job) {
  const { num, seed, first } = job.request;
  const title = `Seed ${seed}`;
  const meta = `${num} image${num > 1 ? "s" : ""}, ${job.size[1]} × ${job.size[0]} pixels`;
  const addresses = [];
  const card = makeCard(title, meta, job, () => addresses.forEach((one) => URL.revokeObjectURL(one)));
  find("generate-jobs").prepend(card.element);
  watch(job, (now) => {
    card.show(now);
    if (now.state !== "done") return;
    announce(`The images of seed ${seed} are done.`);
    const choice = formatChoice(server.formats);
    const list = make("ul", { className: "grid" });
    now.views.forEach((view, i) => list.append(addImage(now, view, i, first + i, choice, addresses)));
    const label = make("div", { className: "row" }, make("span", { className: "unit", textContent: "Save as" }), ...choice.elements);
    card.body.append(list, make("div", { className: "below" }, label));
  });
}

function addImage(job, view, i, number, choice, addresses) {
  const open = make("a", { className: "open", href: zoomAddress(view), title: "Zoom in" });
  open.setAttribute("aria-label", `Zoom into image ${number}`);
  const download = make("button", { type: "button", className: "plain", textContent: "Save" });
  download.setAttribute("aria-label", `Save image ${number}`);
  download.addEventListener("click", async () => {
    try {
      const name = `seed${job.request.seed}_${String(number).padStart(3, "0")}_${job.size.join("x")}.${choice.ending()}`;
      save(await result(job, i, choice.query()), name);
    } catch (error) {
      warn(error.message);
    }
  });
  load(open, view, addresses).catch((error) => warn(error.message));
  return make("li", {}, open, make("div", { className: "under" }, make("span", { textContent: String(number) }), download));
}

async function load(open, view, addresses) {
  const file = await blob(windowPath(view, { height: SHOWN, width: SHOWN }, [0, 0, SHOWN, SHOWN], "model"));
  const address = URL.createObjectURL(file);
  addresses.push(address);
  open.append(make("img", { src: address, alt: "" }));
}
