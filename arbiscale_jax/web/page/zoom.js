// The page that zooms into one view; its address says which view, where and how near.

import { json } from "./api.js";
import { announce, find, save, warn } from "./dom.js";
import { formatTimes, Viewer } from "./viewer.js";

let viewer = null;

/** Returns the address of a view, and of a place in it. */
export function zoomAddress(view, place = null, mode = "model") {
  const where = place && { x: place.x.toFixed(9), y: place.y.toFixed(9), times: Number(place.times.toPrecision(7)), mode };
  return `#zoom/${view}${where ? `?${new URLSearchParams(where)}` : ""}`;
}

/** Prepares the page; `openExample` and `openImage` open something when nothing is open. */
export function prepareZoom({ openExample, openImage }) {
  find("zoom-in").addEventListener("click", () => viewer?.zoomStep(1));
  find("zoom-out").addEventListener("click", () => viewer?.zoomStep(-1));
  find("zoom-whole").addEventListener("click", () => viewer?.whole());
  find("share").addEventListener("click", copyLink);
  find("save-view").addEventListener("click", saveView);
  find("zoom-example").addEventListener("click", openExample);
  find("zoom-image").addEventListener("click", openImage);
  for (const one of modes()) one.addEventListener("change", () => viewer?.setMode(one.value));
}

/** Shows the view that an address names, or says that nothing is open. */
export async function showZoom(rest) {
  const [view, query] = rest.split("?");
  find("zoom-empty").hidden = Boolean(view) || viewer !== null;
  find("zoom-work").hidden = !view && viewer === null;
  if (!view) return;
  const at = Object.fromEntries(new URLSearchParams(query ?? ""));
  const place = { x: Number(at.x), y: Number(at.y), times: Number(at.times) };
  const known = Object.values(place).every((value) => Number.isFinite(value) && value >= 0) && place.times > 0;
  if (viewer?.view === view) {
    if (known) viewer.goTo(place);
    return;
  }
  closeZoom();
  let info;
  try {
    info = await json(`/api/views/${encodeURIComponent(view)}`);
  } catch (error) {
    find("zoom-empty").hidden = false;
    find("zoom-work").hidden = true;
    warn(error.message);
    return;
  }
  const base = { height: info.height, width: info.width };
  const mode = ["model", "split", "bicubic"].includes(at.mode) ? at.mode : "model";
  const label = "Image to zoom into. Arrow keys move, plus and minus zoom, 0 shows the whole, B changes to bicubic.";
  viewer = new Viewer(find("zoom-stage"), { view, anchor: base, base, label, mode, changed });
  if (known) viewer.goTo(place);
  viewer.canvas.focus({ preventScroll: true });
  announce(info.ready ? "The view is open." : "The view is being computed.");
}

/** Closes what is open. */
export function closeZoom() {
  viewer?.close();
  viewer = null;
}

function modes() {
  return document.querySelectorAll('#page-zoom input[name="mode"]');
}

let timer = null;

function changed() {
  if (!viewer) return;
  find("zoom-scale").textContent = `×${formatTimes(viewer.times)}`;
  for (const one of modes()) one.checked = one.value === viewer.mode;
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (!viewer || !location.hash.startsWith("#zoom/")) return;
    history.replaceState(null, "", zoomAddress(viewer.view, viewer.place, viewer.mode));
  }, 300);
}

async function copyLink() {
  const link = new URL(zoomAddress(viewer.view, viewer.place, viewer.mode), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    acknowledge("Copied");
    announce("The link to this place is copied.");
  } catch {
    history.replaceState(null, "", link);
    acknowledge("See address bar");
    announce("The link is in the address bar.");
  }
}

function acknowledge(text) {
  const button = find("share");
  button.textContent = text;
  setTimeout(() => (button.textContent = "Copy link"), 1600);
}

function saveView() {
  viewer.canvas.toBlob((file) => save(file, `zoom_x${formatTimes(viewer.times)}.png`), "image/png");
}
