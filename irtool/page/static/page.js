// The page: pictures come in, the server is asked what has changed, and the selected picture is shown.

import { Panel, make, size } from "./panel.js";
import { Viewer } from "./viewer.js";

const get = id => document.getElementById(id);
const pictures = new Map();
let about = null, panel = null, version = 0, selected = null, queue = { waiting: 0, current: null }, sending = "";

async function ask(path, options = {}) {
  let answer;
  try { answer = await fetch(`api/${path}`, options); } catch {
    throw { error: "irtool serve does not answer.", hint: "Start it again, and open the address it prints.", lost: true };
  }
  const data = await answer.json().catch(() => ({ error: `irtool serve answered ${answer.status}.`, hint: "" }));
  if (!answer.ok) throw { ...data, status: answer.status };
  return data;
}
const send = (path, data = {}) => ask(path, { method: "POST", body: JSON.stringify(data), headers: { "Content-Type": "application/json" } });

function notice({ error, hint }) {
  const text = [error, hint].filter(Boolean).join(" ");
  if ([...get("notices").children].some(n => n.firstChild.textContent === text)) return;
  const box = make("div", null, { class: "warn" }), close = make("button", "Close", { class: "quiet" });
  close.addEventListener("click", () => box.remove());
  box.append(make("p", text), close);
  get("notices").append(box);
}
const attempt = work => async (...args) => { try { return await work(...args); } catch (problem) { notice(problem); } finally { poll(); } };

const viewer = new Viewer(get("viewer"), () => panel.markMissing());
const act = {
  restore: attempt(async id => {
    viewer.setBrush(false);
    await sendMask(id);
    await send(`pictures/${id}/restore`, panel.request(id, pictures.get(id)));
  }),
  cancel: attempt(id => send(`pictures/${id}/cancel`)),
  remove: attempt(id => ask(`pictures/${id}`, { method: "DELETE" })),
  save: async (id, existing) => { await send(`pictures/${id}/save`, { existing }); poll(); },
  words: (id, text) => send(`pictures/${id}/words`, { text }),
  where: kind => viewer.setWhere(kind && `api/pictures/${selected}/where-${kind}.png`),
  notice,
};
async function sendMask(id) {
  const mask = await viewer.takeMask(id);
  if (mask) await ask(`pictures/${id}/mask`, { method: "PUT", body: mask });
}

// What has changed, every now and then; more often while something is done.
let timer = 0, asking = false, again = false, lost = false;
async function poll() {
  if (asking) { again = true; return; }
  asking = true;
  clearTimeout(timer);
  try {
    const news = await ask(`state?since=${version}`);
    lost = false;
    document.body.classList.remove("lost");
    take(news);
  } catch (problem) {
    if (!lost) notice(problem);
    lost = true;
  }
  asking = false;
  const busy = queue.current || queue.waiting || sending;
  timer = setTimeout(poll, again ? 0 : lost ? 4000 : document.hidden ? 4000 : busy ? 350 : 1500);
  again = false;
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });

function take(news) {
  if (news.about && !about) {
    about = news.about;
    panel = new Panel(about, act);
    get("title").textContent = about.title;
    document.title = about.title ? `${about.title} \u00b7 irtool` : "irtool";
    get("files").accept = [...about.suffixes, "image/*"].join(",");
  }
  version = news.version;
  queue = news.queue;
  for (const id of news.removed) {
    pictures.get(id)?.item.remove();
    pictures.delete(id);
    viewer.forget(id);
  }
  for (const picture of news.pictures) {
    const known = pictures.get(picture.id);
    const item = known ? known.item : card(picture);
    pictures.set(picture.id, { ...picture, item });
    drawCard(pictures.get(picture.id));
  }
  if (!pictures.has(selected)) selected = null;
  if (selected === null && pictures.size) select(pictures.keys().next().value);
  else if (news.pictures.some(p => p.id === selected) || news.removed.length) drawSelected();
  drawBar();
}

// The strip.
function card(picture) {
  const item = make("li"), button = make("button", null, { type: "button" }), thumb = make("div", null, { class: "thumb" });
  thumb.append(make("img", null, { alt: "", loading: "lazy" }), make("i"), make("progress", null, { max: 1, "aria-hidden": "true" }));
  button.append(thumb, make("span", picture.name));
  button.addEventListener("click", () => select(picture.id));
  item.append(button);
  get("strip").firstElementChild.append(item);
  return item;
}
const STATES = { new: "", ready: "", queued: "\u2026", working: "\u2026", done: "\u2713", failed: "!" };
const WORDS = { new: "", ready: "", queued: "waiting", working: "being worked on", done: "restored", failed: "failed" };
function drawCard(picture) {
  const image = picture.item.querySelector("img"), mark = picture.item.querySelector("i"), bar = picture.item.querySelector("progress");
  const thumb = `api/pictures/${picture.id}/thumb.jpg`;
  if ((picture.folder || picture.width) && image.getAttribute("src") !== thumb) image.src = thumb;
  const saved = picture.saved && picture.state === "new";
  mark.textContent = saved ? "\u2713" : STATES[picture.state];
  mark.className = saved ? "done" : picture.state;
  bar.hidden = !picture.progress;
  bar.value = picture.progress ?? 0;
  const button = picture.item.firstElementChild;
  button.title = picture.name;
  button.setAttribute("aria-label", [picture.name, saved ? "saved before" : WORDS[picture.state]].filter(Boolean).join(", "));
  button.setAttribute("aria-current", picture.id === selected);
}
function select(id) {
  const before = pictures.get(selected);
  selected = id;
  if (before) drawCard(before);
  const picture = pictures.get(id);
  drawCard(picture);
  picture.item.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (picture.state === "new") act.look(id);
  drawSelected();
}
act.look = attempt(id => send(`pictures/${id}/look`));
get("strip").addEventListener("keydown", e => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key], ids = [...pictures.keys()];
  const next = step && ids[ids.indexOf(selected) + step];
  if (!next) return;
  e.preventDefault();
  select(next);
  pictures.get(next).item.firstElementChild.focus();
});

function drawSelected() {
  const picture = pictures.get(selected), any = Boolean(picture);
  get("empty").hidden = any;
  get("viewer").hidden = get("panel").hidden = get("strip").hidden = !any;
  if (!any) return;
  const { id, result, preview, name } = picture, address = `api/pictures/${id}/`;
  const busy = picture.restoring && picture.state === "working";
  const after = busy && preview ? `${address}preview.jpg?v=${preview}` : result ? `${address}after.jpg?v=${result.version}` : null;
  const whole = result && !(busy && preview);
  viewer.show({
    id, name, after,
    size: whole ? [result.width, result.height] : [picture.width || 4, picture.height || 3],
    mask: [picture.width || 4, picture.height || 3],
    before: picture.width ? `${address}before.jpg` : null,
    afterText: busy && preview ? "preview, reduced" : "after",
  });
  panel.draw(picture);
}
function drawBar() {
  const busy = queue.waiting + (queue.current ? 1 : 0), current = pictures.get(queue.current);
  const doing = current ? `${current.restoring ? "Restoring" : "Looking at"} ${current.name}` : "";
  const text = sending || (busy ? `${doing}${queue.waiting ? `, ${queue.waiting} waiting` : ""}` : "");
  if (get("status").textContent !== text) get("status").textContent = text;
  get("cancel-all").hidden = !queue.waiting;
  get("all").hidden = pictures.size < 2;
  const left = [...pictures.values()].filter(p => !p.result).length;
  get("restore-all").textContent = left ? `Restore all ${left === pictures.size ? left : `other ${left}`}` : "All are restored";
  get("restore-all").disabled = !left;
  get("save-all-label").hidden = ![...pictures.values()].some(p => p.folder);
}
get("cancel-all").addEventListener("click", attempt(() => send("cancel-all")));
get("restore-all").addEventListener("click", attempt(() => send("restore-all", {
  auto: true, save: get("save-all").checked && !get("save-all-label").hidden, model: get("model").value })));
document.addEventListener("keydown", e => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey) && selected && !get("restore").disabled && !get("restore").hidden) act.restore(selected);
});

// Pictures come in.
async function add(files) {
  let first = null, number = 0;
  for (const file of files) {
    sending = files.length > 1 ? `Adding ${++number} of ${files.length}` : `Adding ${file.name}`;
    drawBar();
    try {
      if (about && file.size > about.limits.bytes) {
        throw { error: `${file.name} has ${size(file.size)}; at most ${size(about.limits.bytes)} are taken.`, hint: "Reduce it first." };
      }
      const { id } = await ask(`pictures?name=${encodeURIComponent(file.name.toWellFormed?.() ?? file.name)}`, { method: "POST", body: file });
      first ??= id;
    } catch (problem) { notice(problem); if (problem.lost) break; }
  }
  sending = "";
  await new Promise(done => { const wait = () => asking ? setTimeout(wait, 20) : poll().then(done); wait(); });
  if (first && pictures.has(first)) select(first);
}
const isPicture = name => about.suffixes.some(s => name.toLowerCase().endsWith(s));
get("files").addEventListener("change", e => { add([...e.target.files]); e.target.value = ""; });
get("folder").addEventListener("change", e => { add([...e.target.files].filter(f => isPicture(f.name))); e.target.value = ""; });

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader(), found = [];
  for (;;) {  // a reader gives a hundred at a time
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return found.filter(f => isPicture(f.name));
    for (const one of some) found.push(...await filesOf(one));
  }
}
let depth = 0;
const carries = e => [...(e.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragenter", e => { if (carries(e)) { depth += 1; document.body.classList.add("dropping"); } });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) document.body.classList.remove("dropping"); });
addEventListener("dragover", e => { if (carries(e)) e.preventDefault(); });
addEventListener("drop", async e => {
  if (!carries(e)) return;
  e.preventDefault();
  depth = 0;
  document.body.classList.remove("dropping");
  const entries = [...e.dataTransfer.items].map(i => i.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...e.dataTransfer.files];
  if (!entries.some(entry => entry.isDirectory)) return add(plain);
  add((await Promise.all(entries.map(filesOf))).flat());
});
poll();
