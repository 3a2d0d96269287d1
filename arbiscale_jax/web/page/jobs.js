// Follows this page's jobs on the server, and the cards that show them.

import { json } from "./api.js";
import { make } from "./dom.js";

const POLL_MS = 500;
const cards = new Map(); // functions by the job's id
let timer = null;

/** Tells whether nothing more will change. */
export function ended(job) {
  return ["done", "failed", "cancelled"].includes(job.state);
}

/** Calls `update` with the job now and whenever it has changed, until it has ended. */
export function watch(job, update) {
  update(job);
  if (ended(job)) return;
  cards.set(job.id, update);
  timer ??= setTimeout(poll, POLL_MS);
}

/** Stops to watch a job. */
export function unwatch(id) {
  cards.delete(id);
}

async function poll() {
  timer = null;
  try {
    const jobs = await json("/api/jobs");
    const known = new Set(jobs.map((job) => job.id));
    for (const job of jobs) {
      const update = cards.get(job.id);
      if (ended(job)) cards.delete(job.id);
      update?.(job);
    }
    for (const [id, update] of cards) {
      if (known.has(id)) continue;
      cards.delete(id);
      update({ id, state: "failed", error: "The server was started again and no longer knows this job." });
    }
  } catch {
    // the banner says it, and the next poll may succeed
  }
  if (cards.size) timer ??= setTimeout(poll, POLL_MS);
}

/** Says in words how far a job is. */
export function describe(job) {
  if (job.state === "queued") return job.ahead ? `Waiting; ${job.ahead} before it` : "Waiting";
  if (job.state === "running") return job.done ? `${Math.round(job.done * 100)} %` : "Computing";
  if (job.state === "cancelled") return "Cancelled";
  return job.state === "failed" ? job.error : "";
}

/** Makes the parts of a card that all jobs have; `remove` is called when the user removes it. */
export function makeCard(title, meta, job, remove) {
  const bar = make("progress", { max: 1, "aria-label": `Progress of ${title}` });
  const said = make("p", { className: "said", role: "status" });
  const cancel = make("button", { type: "button", textContent: "Cancel" });
  const away = make("button", { type: "button", className: "plain", textContent: "Remove" });
  away.setAttribute("aria-label", `Remove ${title}`);
  const heading = make("h2", {}, title, make("span", { className: "meta", textContent: meta }));
  const body = make("div");
  const element = make("article", { className: "job", "aria-label": title }, make("header", {}, heading, cancel, away), bar, said, body);
  cancel.addEventListener("click", async () => {
    cancel.disabled = true;
    show(await json(`/api/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => job));
  });
  away.addEventListener("click", async () => {
    unwatch(job.id);
    element.remove();
    remove();
    await json(`/api/jobs/${job.id}`, { method: "DELETE" }).catch(() => null);
  });
  function show(now) {
    const over = ended(now);
    element.classList.toggle("failed", now.state === "failed");
    element.dataset.state = now.state;
    bar.hidden = cancel.hidden = over;
    away.hidden = !over;
    if (now.state === "running" && !now.done) bar.removeAttribute("value");
    else bar.value = now.done ?? 0;
    const text = describe(now);
    if (said.textContent !== text) said.textContent = text;
    said.hidden = !text;
  }
  return { element, body, show };
}
