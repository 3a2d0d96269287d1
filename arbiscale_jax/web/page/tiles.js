// Fetches the tiles that a viewer wants, a few at a time, and keeps those that were used last.

import { blob, windowPath } from "./api.js";

export const TILE = 256; // pixels a side
const AT_ONCE = 4; // a browser opens six connections to a server, and some are needed for other things
const KEPT = 384; // tiles in memory, 256 KiB each
const RETRY_MS = 3000;

/** Holds the tiles of one view. */
export class Tiles {
  /**
   * @param view the name of the view
   * @param sizeAt a function that returns {height, width} of the image at a level
   * @param changed is called when a tile has arrived or failed
   */
  constructor(view, sizeAt, changed) {
    Object.assign(this, { view, sizeAt, changed, error: null });
    this.ready = new Map(); // bitmaps by key, the one that was used last at the end
    this.loading = new Map(); // controllers by key
    this.failed = new Map(); // times by key
    this.wanted = [];
  }

  /** Returns the bitmap of a tile, or undefined. */
  get(tile) {
    const found = this.ready.get(tile.key);
    if (found) {
      this.ready.delete(tile.key);
      this.ready.set(tile.key, found);
    }
    return found;
  }

  /** Says which tiles are wanted, the most important first; what is no longer wanted is not fetched any more. */
  want(tiles) {
    this.wanted = tiles;
    const keys = new Set(tiles.map((tile) => tile.key));
    for (const [key, controller] of this.loading) if (!keys.has(key)) controller.abort();
    this.#next();
  }

  /** Tells whether tiles that are wanted are missing. */
  get busy() {
    return this.wanted.some((tile) => !this.ready.has(tile.key));
  }

  /** Stops everything and frees the memory. */
  close() {
    this.want([]);
    for (const bitmap of this.ready.values()) bitmap.close();
    this.ready.clear();
  }

  #next() {
    const now = Date.now();
    for (const tile of this.wanted) {
      if (this.loading.size >= AT_ONCE) return;
      if (this.ready.has(tile.key) || this.loading.has(tile.key)) continue;
      if (now - (this.failed.get(tile.key) ?? 0) < RETRY_MS) continue;
      this.#load(tile);
    }
  }

  async #load(tile) {
    const controller = new AbortController();
    this.loading.set(tile.key, controller);
    try {
      const path = windowPath(this.view, this.sizeAt(tile.level), tile.box, tile.kind);
      const file = await blob(path, { signal: controller.signal });
      const bitmap = await createImageBitmap(file);
      this.ready.set(tile.key, bitmap);
      this.failed.delete(tile.key);
      this.error = null;
      while (this.ready.size > KEPT) {
        const [oldest, old] = this.ready.entries().next().value;
        old.close();
        this.ready.delete(oldest);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.error = error;
        this.failed.set(tile.key, Date.now());
        setTimeout(() => this.#next(), RETRY_MS + 50);
      }
    } finally {
      this.loading.delete(tile.key);
    }
    this.changed();
    this.#next();
  }
}

/** Returns the tiles of a level that a region shows, {top, left, bottom, right} in pixels of that level. */
export function tilesIn(region, level, size, kind) {
  const found = [];
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  const rows = [Math.floor(clamp(region.top, size.height) / TILE), Math.ceil(clamp(region.bottom, size.height) / TILE)];
  const cols = [Math.floor(clamp(region.left, size.width) / TILE), Math.ceil(clamp(region.right, size.width) / TILE)];
  for (let row = rows[0]; row < rows[1]; row++) {
    for (let col = cols[0]; col < cols[1]; col++) {
      const [top, left] = [row * TILE, col * TILE];
      const box = [top, left, Math.min(TILE, size.height - top), Math.min(TILE, size.width - left)];
      found.push({ key: `${kind}/${level}/${row}/${col}`, kind, level, row, col, box });
    }
  }
  return found;
}
