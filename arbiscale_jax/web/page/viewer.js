// Shows one view in a canvas: the model's image, bicubic interpolation, or both beside a handle.

import { make, short } from "./dom.js";
import { follow } from "./gestures.js";
import { addHandle } from "./handle.js";
import { Tiles, tilesIn } from "./tiles.js";

const MOST = 4096; // times the input
const SPARE_LEVELS = 8; // coarser levels whose tiles stand in for those that are missing

/**
 * A viewer of one view. Places are in pixels of its anchor, an image of the size `anchor`, whose sides at level k are
 * 2^k times as long. The zoom is the number of the screen's own pixels per pixel of the anchor, so that zoom 1 shows the
 * anchor's true pixels.
 */
export class Viewer {
  /**
   * @param stage the element that it fills
   * @param options view: its name; anchor: {height, width}; base: {height, width} at x1; label: what it shows;
   *   mode: "model", "split" or "bicubic"; changed: is called after each change
   */
  constructor(stage, { view, anchor, base, label, mode = "split", changed = () => {} }) {
    Object.assign(this, { stage, view, anchor, base, mode, changed });
    this.share = 0.5; // where the handle is
    this.canvas = make("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "zoomable image" });
    this.canvas.setAttribute("aria-label", label);
    this.tags = ["left", "right"].map((side) => make("span", { className: `tag ${side}` }));
    this.bar = make("i");
    this.ruler = make("div", { className: "ruler", role: "img" }, make("span"), this.bar);
    this.busy = make("span", { className: "busy", textContent: "Rendering …", hidden: true });
    this.tiles = new Tiles(view, (level) => this.sizeAt(level), () => this.draw());
    stage.replaceChildren(this.canvas, ...this.tags, this.ruler, this.busy);
    this.handle = addHandle(this);
    follow(this);
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(stage);
    this.#fit();
  }

  /** Frees what the viewer holds. */
  close() {
    this.observer.disconnect();
    this.tiles.close();
    this.stage.replaceChildren();
  }

  /** The number of times that one pixel of the input is enlarged on the screen. */
  get times() {
    return (this.zoom * this.anchor.width) / this.base.width;
  }

  /** Returns {height, width} of the image at a level. */
  sizeAt(level) {
    const side = (length) => Math.max(1, Math.round(length * 2 ** level));
    return { height: side(this.anchor.height), width: side(this.anchor.width) };
  }

  /** Shows the whole image. */
  whole() {
    this.centre = { x: this.anchor.width / 2, y: this.anchor.height / 2 };
    this.zoom = this.#wholeZoom();
    this.draw();
  }

  /** Zooms by a factor and keeps the place under (x, y), in pixels of the canvas, where it is. */
  zoomBy(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const most = (MOST * this.base.width) / this.anchor.width;
    const zoom = Math.min(Math.max(this.zoom * factor, Math.min(1, this.#wholeZoom() / 2)), most);
    const [dx, dy] = [x - this.canvas.width / 2, y - this.canvas.height / 2];
    this.centre.x += dx / this.zoom - dx / zoom;
    this.centre.y += dy / this.zoom - dy / zoom;
    this.zoom = zoom;
    this.draw();
  }

  /** Zooms to the next power of two in a direction, 1 or -1, where tiles are shown pixel by pixel. */
  zoomStep(direction) {
    const level = Math.log2(this.zoom);
    const next = direction > 0 ? Math.floor(level + 1 + 1e-6) : Math.ceil(level - 1 - 1e-6);
    this.zoomBy(2 ** next / this.zoom);
  }

  /** Moves what is shown by so many pixels of the canvas. */
  moveBy(dx, dy) {
    this.centre.x -= dx / this.zoom;
    this.centre.y -= dy / this.zoom;
    this.draw();
  }

  /** Goes to a place: shares of the width and the height, and times the input. */
  goTo({ x, y, times }) {
    this.centre = { x: x * this.anchor.width, y: y * this.anchor.height };
    this.zoom = (times * this.base.width) / this.anchor.width;
    this.zoomBy(1);
  }

  /** Returns the place as `goTo` takes it. */
  get place() {
    return { x: this.centre.x / this.anchor.width, y: this.centre.y / this.anchor.height, times: this.times };
  }

  /** Chooses what is shown. */
  setMode(mode) {
    this.mode = mode;
    this.draw();
  }

  /** Moves the handle to a share of the width. */
  setShare(share) {
    this.share = Math.min(Math.max(share, 0), 1);
    this.draw();
  }

  /** Draws before the next frame. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
      this.changed();
    });
  }

  #wholeZoom() {
    return Math.min(this.canvas.width / this.anchor.width, this.canvas.height / this.anchor.height);
  }

  #fit() {
    const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
    if (!width || !height) return;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    if (this.centre) this.draw();
    else this.whole();
  }

  /** Returns the level whose tiles are shown, at a ratio in (1/2, 1], and the place of the image on the canvas. */
  #layout() {
    const level = Math.ceil(Math.log2(this.zoom) - 1e-6);
    const place = (half, centre) => half - centre * this.zoom;
    let [left, top] = [place(this.canvas.width / 2, this.centre.x), place(this.canvas.height / 2, this.centre.y)];
    const exact = Math.abs(this.zoom / 2 ** level - 1) < 1e-6;
    if (exact) [left, top] = [Math.round(left), Math.round(top)]; // pixel on pixel
    return { level, left, top, exact };
  }

  #draw() {
    const limit = (value, most) => Math.min(Math.max(value, 0), most);
    this.centre = { x: limit(this.centre.x, this.anchor.width), y: limit(this.centre.y, this.anchor.height) };
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    const cut = Math.round(this.share * width);
    const parts = { model: [["model", 0, width]], bicubic: [["bicubic", 0, width]] }[this.mode] ?? [
      ["bicubic", 0, cut],
      ["model", cut, width],
    ];
    const layout = this.#layout();
    const wanted = parts.flatMap(([kind, from, to]) => this.#drawPart(context, layout, kind, from, to));
    const distance = (tile) => Math.hypot(tile.x - width / 2, tile.y - height / 2);
    this.tiles.want(wanted.sort((a, b) => distance(a) - distance(b)));
    this.#label(layout);
  }

  /** Draws one kind of image between two columns of the canvas, and returns the tiles that it wants. */
  #drawPart(context, layout, kind, from, to) {
    if (to <= from) return [];
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, this.canvas.height);
    context.clip();
    const wanted = this.#tilesAt(layout.level, layout, kind, from, to);
    const missing = wanted.some((tile) => !this.tiles.ready.has(tile.key));
    for (let level = layout.level - SPARE_LEVELS; missing && level < layout.level; level++) {
      for (const tile of this.#tilesAt(level, layout, kind, from, to)) this.#place(context, tile, true);
    }
    for (const tile of wanted) this.#place(context, tile, !layout.exact);
    context.restore();
    return wanted;
  }

  /** Returns the tiles of a level that show between two columns, with their places on the canvas. */
  #tilesAt(level, layout, kind, from, to) {
    const size = this.sizeAt(level);
    const [across, down] = [(this.zoom * this.anchor.width) / size.width, (this.zoom * this.anchor.height) / size.height];
    const region = {
      top: -layout.top / down,
      bottom: (this.canvas.height - layout.top) / down,
      left: (from - layout.left) / across,
      right: (to - layout.left) / across,
    };
    return tilesIn(region, level, size, kind).map((tile) => {
      const [top, left, height, width] = tile.box;
      const x = Math.round(layout.left + left * across);
      const y = Math.round(layout.top + top * down);
      const w = Math.round(layout.left + (left + width) * across) - x; // shared edges are rounded alike: no seams
      const h = Math.round(layout.top + (top + height) * down) - y;
      return { ...tile, x: x + w / 2, y: y + h / 2, at: [x, y, w, h] };
    });
  }

  #place(context, tile, smooth) {
    const bitmap = this.tiles.get(tile);
    if (!bitmap) return;
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = "high";
    context.clearRect(...tile.at);
    context.drawImage(bitmap, ...tile.at);
  }

  #label(layout) {
    const names = { model: ["", "Model"], bicubic: ["", "Bicubic"], split: ["Bicubic", "Model"] }[this.mode];
    this.tags.forEach((tag, i) => {
      tag.textContent = names[i];
      tag.hidden = !names[i];
    });
    this.handle.update();
    const perInput = this.times / this.ratio; // CSS pixels
    const exponent = 10 ** Math.floor(Math.log10(120 / perInput));
    const number = [5, 2, 1].map((n) => n * exponent).find((n) => n * perInput <= 120) ?? exponent;
    this.bar.style.width = `${number * perInput}px`;
    const what = number >= 1 ? `${number} input pixel${number === 1 ? "" : "s"}` : `${short(number, 5)} of an input pixel`;
    const text = `×${formatTimes(this.times)} the input · ${what}`;
    if (this.ruler.firstChild.textContent !== text) {
      this.ruler.firstChild.textContent = text;
      this.ruler.setAttribute("aria-label", `Scale: ${text}`);
    }
    const error = this.tiles.error;
    this.busy.textContent = error ? error.message : "Rendering …";
    this.busy.hidden = !this.tiles.busy;
    this.stage.dataset.ready = String(!this.tiles.busy);
    this.stage.dataset.exact = String(layout.exact);
  }
}

/** Writes a factor: three digits are enough. */
export function formatTimes(times) {
  return times >= 100 ? String(Math.round(times)) : String(Number(times.toPrecision(3)));
}
