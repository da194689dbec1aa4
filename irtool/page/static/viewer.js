// The picture before and after: a slider between them, side by side, zoom, and a brush for what is missing.

const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const MASK_SIDE = 2048;  // as the server expects
function make(address, text) {
  const image = new Image();
  Object.assign(image, { src: address, alt: text, draggable: false });
  image.dataset.address = address;
  return image;
}

export class Viewer {
  constructor(root, onPaint) {
    this.view = root.querySelector(".view");
    this.root = root;
    this.onPaint = onPaint;
    const find = s => root.querySelector(s);
    this.before = find(".before img");
    this.after = find(".after img");
    this.where = find(".where");
    this.canvas = find("canvas");
    this.split = find(".split");
    this.divider = find(".divider");
    this.ring = find(".ring");
    this.panes = [find(".pane.before"), find(".pane.after")];
    this.masks = new Map();  // id of a picture -> { canvas, dirty }
    this.mode = "slider";
    this.zoom = "fit";
    this.center = [0.5, 0.5];
    this.size = [1, 1];
    this.brushing = false;
    this.erasing = false;
    this.cursor = [0.5, 0.5];
    root.querySelectorAll("[data-mode]").forEach(b => b.addEventListener("click", () => this.setMode(b.dataset.mode)));
    root.querySelectorAll("[data-zoom]").forEach(b => b.addEventListener("click", () => this.setZoom(b.dataset.zoom)));
    this.split.addEventListener("input", () => this.draw());
    find("#brush").addEventListener("click", () => this.setBrush(!this.brushing));
    find("#erase").addEventListener("click", e => {
      this.erasing = !this.erasing;
      e.currentTarget.setAttribute("aria-pressed", this.erasing);
    });
    find("#clear").addEventListener("click", () => this.clear());
    this.brushSize = find("#brush-size");
    this.brushSize.addEventListener("input", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.view);
    this.listen();
    this.setMode("slider");
  }

  // Show a picture: { id, name, size: [w, h] of the result, before, after, afterText, mask: [w, h] }; addresses or null.
  show(shown) {
    const other = shown.id !== this.id;
    this.id = shown.id;
    this.size = shown.size;
    this.maskSize = shown.mask;
    this.view.style.setProperty("--aspect", shown.size[0] / shown.size[1]);
    if (other) {
      this.center = [0.5, 0.5];
      this.zoom = "fit";
      this.split.value = 50;
      this.setWhere(null);
      this.setBrush(false);
    }
    this.load("before", shown.before, `before: ${shown.name}`, other);
    this.load("after", shown.after, `after: ${shown.name}`, other);
    this.view.querySelector(".tag.right").textContent = shown.afterText;
    this.view.classList.toggle("single", !shown.after);
    this.canMark = Boolean(shown.before);
    this.root.querySelector("#brush").disabled = !this.canMark;
    this.root.querySelector("#modes").hidden = !shown.after;
    this.has = Boolean(shown.after);
    this.showMask();
    this.setMode(this.wanted || this.mode, false);
  }

  // What is shown stays until the new image is there, so that nothing flickers.
  load(which, address, text, other) {
    const image = this[which];
    image.alt = text;
    if (image.dataset.address === String(address)) return;
    image.dataset.address = String(address);
    if (!address || other) image.removeAttribute("src");
    if (!address) return;
    const next = make(address, text);
    const put = () => {
      if (this[which].dataset.address !== address) return;  // another was asked for since
      this[which].replaceWith(next);
      this[which] = next;
      this.draw();
    };
    next.decode().then(put, put);
  }

  setMode(mode, chosen = true) {
    if (chosen) this.wanted = mode;
    this.mode = this.brushing || !this.has ? "before" : mode;
    this.view.dataset.view = this.mode;
    this.root.querySelectorAll("[data-mode]").forEach(b => b.setAttribute("aria-pressed", b.dataset.mode === this.mode));
    this.split.disabled = this.mode !== "slider";
    this.draw();
  }

  // "fit", or device pixels for each pixel; `point` of the view, in CSS pixels, stays where it is.
  setZoom(zoom, point) {
    const held = point && this.toPicture(point);
    this.zoom = zoom === "fit" ? zoom : clamp(Number(zoom), 0.02, 16);
    if (held) {
      const s = this.scale(), [w, h] = this.size, [pw, ph] = this.paneSize(), at = this.inPane(point);
      this.center = [held[0] - (at[0] - pw / 2) / (w * s), held[1] - (at[1] - ph / 2) / (h * s)];
    }
    this.draw();
  }

  paneSize() {
    const pane = this.panes[this.mode === "after" ? 1 : 0];
    return [pane.clientWidth, pane.clientHeight];
  }
  // CSS pixels for each pixel of the result.
  scale() {
    const [w, h] = this.size, [pw, ph] = this.paneSize();
    const edge = matchMedia("(max-width: 860px)").matches ? 0 : 28;
    if (this.zoom === "fit") return Math.min((pw - edge) / w, (ph - edge) / h, 2);
    return this.zoom / devicePixelRatio;
  }
  // A point of the view in its pane: side by side both panes show the same part.
  inPane([x, y]) {
    if (this.mode !== "sides") return [x, y];
    const pane = this.panes[1];
    return [x >= pane.offsetLeft && pane.offsetLeft ? x - pane.offsetLeft : x,
      y >= pane.offsetTop && pane.offsetTop ? y - pane.offsetTop : y];
  }
  toPicture(point) {
    const [x, y] = this.inPane(point), s = this.scale();
    return [(x - this.place[0]) / (this.size[0] * s), (y - this.place[1]) / (this.size[1] * s)];
  }

  draw() {
    const [w, h] = this.size, [pw, ph] = this.paneSize();
    if (!pw || !ph) return;
    const s = this.scale(), sw = w * s, sh = h * s;
    const put = (i, shown, room) => {  // an edge of the picture stays at the edge of the pane
      if (shown <= room) { this.center[i] = 0.5; return (room - shown) / 2; }
      this.center[i] = clamp(this.center[i], room / 2 / shown, 1 - room / 2 / shown);
      return room / 2 - this.center[i] * shown;
    };
    this.place = [put(0, sw, pw), put(1, sh, ph)];
    const style = { width: `${sw}px`, height: `${sh}px`, transform: `translate(${this.place[0]}px, ${this.place[1]}px)` };
    for (const e of [this.before, this.after, this.where, this.canvas]) Object.assign(e.style, style);
    const left = Math.max(0, this.place[0]), right = Math.min(pw, this.place[0] + sw);
    const x = this.handle = left + (right - left) * this.split.value / 100;
    Object.assign(this.divider.style, { left: `${x}px`, top: `${Math.max(0, this.place[1])}px`, height: `${Math.min(ph, sh)}px` });
    this.panes[1].style.clipPath = this.mode === "slider" ? `inset(0 0 0 ${x}px)` : "";
    this.panes[0].style.clipPath = this.mode === "slider" ? `inset(0 ${pw - x}px 0 0)` : "";
    const large = sw > pw + 1 || sh > ph + 1;
    this.view.classList.toggle("large", large);
    this.view.classList.toggle("exact", s * devicePixelRatio >= 2.5);
    const zoom = s * devicePixelRatio;
    this.root.querySelector("#scale").textContent = this.canMark && Math.abs(zoom - 1) > 0.005 ? `${Math.round(zoom * 100)} %` : "";
    this.root.querySelectorAll("[data-zoom]").forEach(b => b.setAttribute("aria-pressed",
      b.dataset.zoom === "fit" ? this.zoom === "fit" : this.zoom !== "fit" && Math.abs(zoom - 1) < 0.005));
    this.drawRing();
  }

  drawRing() {
    this.ring.hidden = !this.brushing;
    if (!this.brushing || !this.place) return;
    const s = this.scale(), side = `${this.brushSize.value}px`;
    Object.assign(this.ring.style, { width: side, height: side, left: `${this.place[0] + this.cursor[0] * this.size[0] * s}px`,
      top: `${this.place[1] + this.cursor[1] * this.size[1] * s}px` });
  }

  setWhere(address) {
    this.where.hidden = !address;
    if (address) this.where.src = address; else this.where.removeAttribute("src");
    if (address && this.mode === "after") this.setMode("before");
  }

  // The brush.
  setBrush(on) {
    this.brushing = on && this.canMark;
    this.root.querySelector("#brush").setAttribute("aria-pressed", this.brushing);
    this.root.querySelector("#brush-tools").hidden = !this.brushing;
    this.view.classList.toggle("brushing", this.brushing);
    if (this.brushing) { this.ensureMask(); this.view.focus({ preventScroll: true }); }
    this.setMode(this.wanted || "slider", false);
  }
  ensureMask() {
    if (!this.masks.has(this.id)) {
      const canvas = document.createElement("canvas"), shrink = Math.min(1, MASK_SIDE / Math.max(...this.maskSize));
      [canvas.width, canvas.height] = this.maskSize.map(v => Math.max(1, Math.round(v * shrink)));
      this.masks.set(this.id, { canvas, dirty: false, empty: true });
    }
    this.showMask();
  }
  showMask() {
    const mask = this.masks.get(this.id);
    this.canvas.hidden = !mask || mask.empty;
    if (!mask) return;
    if (this.canvas.width !== mask.canvas.width || this.canvas.height !== mask.canvas.height) {
      [this.canvas.width, this.canvas.height] = [mask.canvas.width, mask.canvas.height];
    }
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(mask.canvas, 0, 0);
  }
  // A stroke between two places of the picture, in [0, 1].
  stroke(from, to) {
    const mask = this.masks.get(this.id);
    if (!mask) return;
    const context = mask.canvas.getContext("2d"), { width, height } = mask.canvas;
    context.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    context.strokeStyle = "#00c85a";
    context.lineWidth = this.brushSize.value / (this.scale() * this.size[0]) * width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from[0] * width, from[1] * height);
    context.lineTo(to[0] * width + 0.01, to[1] * height);
    context.stroke();
    mask.dirty = true;
    if (mask.empty && !this.erasing) { mask.empty = false; this.onPaint(this.id); }
    this.showMask();
  }
  clear() {
    const mask = this.masks.get(this.id);
    if (!mask) return;
    mask.canvas.getContext("2d").clearRect(0, 0, mask.canvas.width, mask.canvas.height);
    Object.assign(mask, { dirty: true, empty: true });
    this.showMask();
  }
  // The mask of a picture as a PNG, white where it was painted, if it was changed since; an empty blob for none.
  async takeMask(id) {
    const mask = this.masks.get(id);
    if (!mask || !mask.dirty) return null;
    mask.dirty = false;
    if (mask.empty) return new Blob();
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [mask.canvas.width, mask.canvas.height];
    const context = copy.getContext("2d");
    context.drawImage(mask.canvas, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, copy.width, copy.height);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, copy.width, copy.height);
    return new Promise(done => copy.toBlob(done, "image/png"));
  }
  forget(id) { this.masks.delete(id); }

  listen() {
    const view = this.view;
    let held = null, last = null;
    const point = e => { const r = view.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
    const slide = x => {
      const [pw] = this.paneSize(), sw = this.size[0] * this.scale();
      const left = Math.max(0, this.place[0]), right = Math.min(pw, this.place[0] + sw);
      this.split.value = 100 * (x - left) / Math.max(1, right - left);
      this.draw();
    };
    view.addEventListener("pointerdown", e => {
      if (e.button || !this.place) return;
      const at = point(e);
      const near = this.mode === "slider" && Math.abs(at[0] - this.handle) < 24;
      held = this.brushing ? "brush" : near ? "split" : view.classList.contains("large") ? "pan" : this.mode === "slider" ? "split" : null;
      if (!held) return;
      view.setPointerCapture(e.pointerId);
      view.classList.toggle("dragging", held === "pan");
      last = at;
      if (held === "split") slide(at[0]);
      if (held === "brush") { this.cursor = this.toPicture(at); this.stroke(this.cursor, this.cursor); this.drawRing(); }
    });
    view.addEventListener("pointermove", e => {
      const at = point(e);
      if (this.brushing) {
        const to = this.toPicture(at);
        if (held === "brush") this.stroke(this.cursor, to);
        this.cursor = to;
        this.drawRing();
      } else if (held === "split") slide(at[0]);
      else if (held === "pan") { this.pan(last[0] - at[0], last[1] - at[1]); last = at; }
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { held = null; view.classList.remove("dragging"); });
    view.addEventListener("dblclick", e => { if (!this.brushing) this.setZoom(this.zoom === "fit" ? 1 : "fit", point(e)); });
    view.addEventListener("wheel", e => {
      if (!this.place || (matchMedia("(max-width: 860px)").matches && !e.ctrlKey)) return;  // the page scrolls
      e.preventDefault();
      this.setZoom(this.scale() * devicePixelRatio * (e.deltaY < 0 ? 1.2 : 1 / 1.2), point(e));
    }, { passive: false });
    view.addEventListener("keydown", e => this.key(e));
  }
  pan(dx, dy) {
    const s = this.scale();
    this.center = [this.center[0] + dx / (this.size[0] * s), this.center[1] + dy / (this.size[1] * s)];
    this.draw();
  }
  key(e) {
    if (e.target !== this.view || e.ctrlKey || e.metaKey || e.altKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    const middle = [this.view.clientWidth / 2, this.view.clientHeight / 2];
    if (arrow && this.brushing) {
      const step = (e.shiftKey ? 2 : 12) / this.scale();
      this.cursor = this.cursor.map((v, i) => clamp(v + arrow[i] * step / this.size[i], 0, 1));
      this.drawRing();
    } else if (arrow && this.view.classList.contains("large")) this.pan(arrow[0] * 60, arrow[1] * 60);
    else if (arrow && this.mode === "slider" && arrow[0]) { this.split.value = Number(this.split.value) + 2 * arrow[0]; this.draw(); }
    else if (e.key === " " && this.brushing) this.stroke(this.cursor, this.cursor);
    else if (e.key === "Escape" && this.brushing) this.setBrush(false);
    else if (e.key === "+" || e.key === "=") this.setZoom(this.scale() * devicePixelRatio * 1.25, middle);
    else if (e.key === "-") this.setZoom(this.scale() * devicePixelRatio / 1.25, middle);
    else if (e.key === "0") this.setZoom("fit");
    else if (e.key === "1") this.setZoom(1, middle);
    else return;
    e.preventDefault();
  }
}
