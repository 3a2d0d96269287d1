// The choice of a format, and the saving of results in it.

import { blob } from "./api.js";
import { make } from "./dom.js";

const ENDINGS = { tiff: "tif" };

/** Makes the choice of a format and its quality; `query` and `ending` say what was chosen. */
export function formatChoice(formats) {
  const kind = make("select", { "aria-label": "Format" });
  for (const one of formats) kind.append(make("option", { value: one.name, textContent: one.name.toUpperCase() }));
  const quality = make("input", { type: "number", min: 1, max: 100, className: "quality", title: "Quality" });
  quality.setAttribute("aria-label", "Quality, from 1 to 100");
  const update = () => {
    const own = formats.find((one) => one.name === kind.value).quality;
    quality.hidden = own === null;
    quality.value = own ?? "";
  };
  kind.addEventListener("change", update);
  update();
  return {
    elements: [kind, quality],
    query: () => `format=${kind.value}${quality.hidden || !quality.value ? "" : `&quality=${quality.value}`}`,
    ending: () => ENDINGS[kind.value] ?? kind.value,
  };
}

/** Fetches a result of a job. */
export function result(job, number, query) {
  return blob(`/api/jobs/${job.id}/results/${number}?${query}`);
}
