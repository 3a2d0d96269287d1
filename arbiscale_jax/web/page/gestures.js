// Moves and zooms a viewer by mouse, touch, wheel and keys.

const WHEEL = 0.0016; // zoom by e^(WHEEL * pixels)
const PINCH = 0.01; // of a trackpad, which comes as a wheel with the control key

/** Lets the user move a viewer. */
export function follow(viewer) {
  const { canvas } = viewer;
  const pointers = new Map(); // {x, y} by id, in pixels of the canvas
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) * viewer.ratio, y: (event.clientY - box.top) * viewer.ratio };
  };
  const middle = () => {
    const all = [...pointers.values()];
    const mean = (name) => all.reduce((sum, one) => sum + one[name], 0) / all.length;
    const apart = all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0;
    return { x: mean("x"), y: mean("y"), apart };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = middle();
    pointers.set(event.pointerId, at(event));
    const now = middle();
    viewer.moveBy(now.x - before.x, now.y - before.y);
    if (before.apart && now.apart) viewer.zoomBy(now.apart / before.apart, now.x, now.y);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("dblclick", (event) => {
    const { x, y } = at(event);
    viewer.zoomBy(2, x, y);
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 32 : 1);
      const { x, y } = at(event);
      viewer.zoomBy(Math.exp(-pixels * (event.ctrlKey ? PINCH : WHEEL)), x, y);
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = keys(viewer)[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function keys(viewer) {
  const step = Math.min(viewer.canvas.width, viewer.canvas.height) / 6;
  const other = viewer.mode === "bicubic" ? "model" : "bicubic";
  return {
    ArrowLeft: () => viewer.moveBy(step, 0),
    ArrowRight: () => viewer.moveBy(-step, 0),
    ArrowUp: () => viewer.moveBy(0, step),
    ArrowDown: () => viewer.moveBy(0, -step),
    "+": () => viewer.zoomStep(1),
    "=": () => viewer.zoomStep(1),
    "-": () => viewer.zoomStep(-1),
    0: () => viewer.whole(),
    1: () => viewer.zoomBy(1 / viewer.zoom),
    b: () => viewer.setMode(other),
    B: () => viewer.setMode(other),
  };
}
