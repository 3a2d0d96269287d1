// The handle between the two sides of a comparison, for pointers and for keys.

import { make } from "./dom.js";

/** Adds the handle of a viewer; `update` shows where it is. */
export function addHandle(viewer) {
  const handle = make("div", {
    className: "handle",
    role: "slider",
    tabIndex: 0,
    "aria-label": "Border between bicubic on the left and the model on the right",
    "aria-orientation": "horizontal",
    "aria-valuemin": "0",
    "aria-valuemax": "100",
  });
  viewer.stage.append(handle);
  const move = (event) => {
    const box = viewer.stage.getBoundingClientRect();
    viewer.setShare((event.clientX - box.left) / box.width);
  };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    event.preventDefault();
    handle.focus();
  });
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) move(event);
  });
  handle.addEventListener("keydown", (event) => {
    const to = {
      ArrowLeft: viewer.share - 0.02,
      ArrowRight: viewer.share + 0.02,
      PageDown: viewer.share - 0.2,
      PageUp: viewer.share + 0.2,
      Home: 0,
      End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    viewer.setShare(to);
  });
  return {
    update() {
      handle.hidden = viewer.mode !== "split";
      handle.style.left = `${viewer.share * 100}%`;
      const percent = Math.round(viewer.share * 100);
      handle.setAttribute("aria-valuenow", String(percent));
      handle.setAttribute("aria-valuetext", `${percent} % bicubic, ${100 - percent} % model`);
    },
  };
}
