// Starts the page: asks for the token, finds out what the server can do, and shows what the address names.

import { ApiError, client, json, setToken, stay } from "./api.js";
import { find, make, warn } from "./dom.js";
import { prepareGenerate, randomSeed, restoreGenerated } from "./generate.js";
import { prepareUpscale, restoreUpscaled, uploadExample } from "./upscale.js";
import { prepareZoom, showZoom, zoomAddress } from "./zoom.js";

const PAGES = ["upscale", "generate", "zoom"];
const LOST = "The server does not answer. The page tries again by itself.";

/** Takes a token from the address #token=..., which browsers do not send, and removes it from there. */
function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  setToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname);
}

/** Asks for the token until the server takes it, and returns what the server can do. */
async function connect() {
  for (;;) {
    try {
      return await json("/api/server");
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
    }
    await askToken();
  }
}

function askToken() {
  const [dialog, form] = [find("token-dialog"), find("token-form")];
  dialog.showModal();
  return new Promise((done) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      setToken(find("token").value);
      find("token-said").textContent = "The server does not take that token.";
      dialog.close();
      done();
    };
    dialog.oncancel = (event) => event.preventDefault();
  });
}

function section(name) {
  return find(`page-${name}`);
}

/** Shows the page that the address names. */
function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const page = PAGES.includes(name) ? name : PAGES.find((one) => !section(one).dataset.missing);
  if (section(page).hidden) {
    window.scrollTo(0, 0);
    warn("");
  }
  for (const one of PAGES) section(one).hidden = one !== page;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${page[0].toUpperCase()}${page.slice(1)} · arbiscale`;
  if (page === "zoom") showZoom(rest.join("/"));
}

/** Says on a page that this server cannot do what it is for. */
function missing(page, text) {
  section(page).dataset.missing = "yes";
  section(page).replaceChildren(make("p", { className: "empty", textContent: text }));
}

async function openExample(info) {
  try {
    const picture = await uploadExample(info.examples[0].name);
    location.hash = zoomAddress(`photo-${picture.id}-0-0-auto`);
  } catch (error) {
    warn(error.message);
  }
}

async function start() {
  takeToken();
  client();
  find("skip").addEventListener("click", (event) => {
    event.preventDefault();
    find("content").focus();
  });
  const info = await connect();
  if (info.upscale) prepareUpscale(info);
  else missing("upscale", "This server has no model that upscales.");
  if (info.generate) prepareGenerate(info);
  else missing("generate", "This server has no model that generates.");
  find("zoom-example").hidden = !info.upscale;
  find("zoom-image").hidden = !info.generate;
  prepareZoom({
    openExample: () => openExample(info),
    openImage: () => (location.hash = zoomAddress(`image-${randomSeed()}-0`)),
  });
  const jobs = await json("/api/jobs");
  if (info.upscale) restoreUpscaled(jobs.filter((job) => job.request.task === "upscale"));
  if (info.generate) restoreGenerated(jobs.filter((job) => job.request.task === "generate"));
  window.addEventListener("hashchange", route);
  route();
  document.body.dataset.ready = "yes";
  let lost = false;
  stay((there) => {
    if (lost && there) warn("");
    if (!there) setTimeout(() => lost && warn(LOST), 4000);
    lost = !there;
  });
}

start().catch((error) => warn(error.message));
