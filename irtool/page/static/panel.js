// What is to be done to the selected picture, and what became of it.

const get = id => document.getElementById(id);
export function make(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}
export const size = bytes => bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;

export class Panel {
  // act: { restore, cancel, save, words, remove, where, changed } of the page.
  constructor(about, act) {
    this.names = new Map(about.tasks.map(t => [t.id, t.name]));
    this.act = act;
    this.edits = new Map();  // id of a picture -> its switches
    this.rows = new Map();
    this.where = null;
    for (const model of about.models) get("model").append(make("option", model, { value: model }));
    for (const { id, name } of about.tasks) this.rows.set(id, this.row(id, name));
    get("restore").addEventListener("click", () => act.restore(this.picture.id));
    get("cancel").addEventListener("click", () => act.cancel(this.picture.id));
    get("remove").addEventListener("click", () => act.remove(this.picture.id));
    get("save").addEventListener("click", () => this.save("error"));
    get("taken").querySelectorAll("button").forEach(b => b.addEventListener("click", () => this.save(b.dataset.existing)));
    get("reset").addEventListener("click", () => { this.edits.delete(this.picture.id); this.heard(""); this.draw(this.picture); });
    get("enlarge").addEventListener("change", e => { this.edit().scale = Number(e.target.value) || null; this.drawTasks(); });
    get("model").addEventListener("change", e => { this.edit().model = e.target.value; });
    get("words").addEventListener("submit", e => { e.preventDefault(); this.say(get("sentence").value); });
  }

  row(id, name) {
    const li = make("li"), label = make("label"), input = make("input", null, { type: "checkbox", role: "switch", class: "switch" });
    const strength = make("div", null, { class: "strength" });
    const range = make("input", null, { type: "range", min: 5, max: 100, step: 5, "aria-label": `Strength: ${name}` });
    const shown = make("output", null, { class: "small soft" }), score = make("span", null, { class: "score" });
    const place = make("button", "Where", { type: "button", class: "place", "aria-pressed": "false", "aria-label": `Show where: ${name}` });
    label.append(input, name);
    strength.append(range, shown);
    li.append(label, score, place, strength);
    input.addEventListener("change", () => {
      const edit = this.edit();
      Object.assign(edit, { auto: false, ordered: false });
      if (input.checked) edit.tasks.set(id, edit.strengths.get(id) ?? 1); else edit.tasks.delete(id);
      this.drawTasks();
    });
    range.addEventListener("input", () => {
      const edit = this.edit();
      edit.auto = false;
      edit.strengths.set(id, range.value / 100);
      edit.tasks.set(id, range.value / 100);
      this.drawTasks();
    });
    place.addEventListener("click", () => {
      this.where = this.where === id ? null : id;
      this.act.where(this.where);
      this.drawTasks();
    });
    return { li, input, score, place, strength, range, shown };
  }

  // The switches of a picture: at first those of what was found.
  edit(picture = this.picture) {
    if (!this.edits.has(picture.id)) {
      const tasks = new Map(picture.suggestion ? picture.suggestion.tasks : []);
      const edit = { auto: true, tasks, strengths: new Map(tasks), ordered: false, scale: null, model: get("model").options[0].value };
      if (!picture.suggestion) return edit;
      this.edits.set(picture.id, edit);
    }
    return this.edits.get(picture.id);
  }
  request(id, picture) {
    const { auto, tasks, ordered, scale, model } = this.edit(picture);
    return { auto, tasks: [...tasks], ordered, scale, model };
  }
  markMissing() {
    const edit = this.edit();
    edit.auto = false;
    edit.tasks.set("missing", 1);
    edit.named = new Set([...(edit.named || []), "missing"]);
    this.drawTasks();
  }
  heard(text, bad = false) {
    get("heard").textContent = text;
    get("heard").classList.toggle("bad", bad);
  }
  async say(text) {
    const picture = this.picture;
    this.heard("...");
    try {
      const said = await this.act.words(picture.id, text);
      if (picture !== this.picture && picture.id !== this.picture.id) return;
      if (said.answer) return this.heard(said.answer);
      const tasks = new Map(said.tasks);
      const edit = Object.assign(this.edit(), { auto: false, tasks, ordered: said.ordered, scale: said.scale });
      edit.named = new Set(tasks.keys());
      tasks.forEach((v, k) => edit.strengths.set(k, v));
      const named = ids => ids.map(id => this.names.get(id)).join(said.ordered ? ", then " : ", ");
      const parts = tasks.size ? [`remove ${named([...tasks.keys()])}`] : ["nothing to remove"];
      if (said.keep.length) parts.push(`keep ${named(said.keep)}`);
      if (said.scale) parts.push(`enlarge ${said.scale} times`);
      this.heard(`Understood: ${parts.join("; ")}.`);
      this.drawTasks();
    } catch (problem) { this.heard([problem.error, problem.hint].filter(Boolean).join(" "), true); }
  }
  async save(existing) {
    get("taken").hidden = true;
    try { await this.act.save(this.picture.id, existing); } catch (problem) {
      if (problem.status !== 409) return this.act.notice(problem);
      get("taken").hidden = false;
      get("taken").querySelector("p").textContent = problem.error;
      get("taken").querySelector("button").focus();
    }
  }

  draw(picture) {
    const other = !this.picture || this.picture.id !== picture.id;
    this.picture = picture;
    if (other) { this.where = null; this.heard(""); get("sentence").value = ""; get("taken").hidden = true; }
    get("name").textContent = get("name").title = picture.name;
    const reduced = picture.shown && picture.shown[0] < picture.width ? ", shown reduced" : "";
    get("facts").textContent = picture.width
      ? `${picture.width} \u00d7 ${picture.height}${reduced}${picture.saved ? ` \u00b7 saved: ${picture.saved}` : ""}` : "";
    get("failure").hidden = !picture.error;
    if (picture.error) get("failure").textContent = [picture.error.error, picture.error.hint].filter(Boolean).join(" ");
    this.drawTasks();
    this.drawWork();
    this.drawResult();
  }
  drawTasks() {
    const picture = this.picture, looked = Boolean(picture.suggestion), edit = this.edit();
    const scores = { ...picture.found, ...picture.perhaps };
    const listed = new Set([...Object.keys(scores), ...(edit.named || []), ...(picture.masked ? ["missing"] : [])]);
    get("verdict").textContent = !looked ? (picture.error ? "Not looked at" : "Looking ...")
      : Object.keys(picture.found).length ? "Found" : Object.keys(scores).length ? "Nothing found for sure" : "Nothing found";
    get("reset").hidden = edit.auto;
    get("tasks").disabled = !looked;
    for (const [id, r] of this.rows) {
      const on = edit.tasks.has(id), home = get(listed.has(id) ? "found" : "others");
      if (r.li.parentNode !== home) home.append(r.li);
      r.input.checked = on;
      r.score.textContent = id in scores ? `${id in (picture.perhaps || {}) ? "perhaps " : ""}${scores[id].toFixed(2)}` : "";
      r.place.hidden = !(picture.where || []).includes(id);
      r.place.setAttribute("aria-pressed", this.where === id);
      r.strength.hidden = !on;
      if (on) {
        const value = Math.round(edit.tasks.get(id) * 100);
        r.range.value = value;
        r.shown.textContent = `${value} %`;
      }
    }
    get("enlarge").value = edit.scale || "";
    get("model").value = edit.model;
    get("restore").disabled = !looked || (!edit.tasks.size && !edit.scale);
  }
  drawWork() {
    const { state, restoring, progress, preview } = this.picture, busy = restoring && (state === "queued" || state === "working");
    get("restore").hidden = busy;
    get("working").hidden = !busy;
    if (progress) get("progress").value = progress; else get("progress").removeAttribute("value");
    get("progress-text").textContent = state === "queued" ? "waiting" : progress ? `${Math.round(progress * 100)} %` : preview ? "preview shown" : "";
  }
  drawResult() {
    const { result, folder, saved } = this.picture, box = get("result");
    box.hidden = !result;
    if (!result) return;
    get("done").textContent = result.untouched ? "Nothing was removed: the file is unchanged."
      : result.steps.length ? `Removed ${result.steps.join(", then ")}.` : "Enlarged.";
    get("done").title = `${result.seconds} s`;
    const facts = [`${result.width} \u00d7 ${result.height}, ${size(result.bytes)}`];
    get("remarks").replaceChildren(...[...facts, ...result.left, ...result.notes].map(t => make("li", t)));
    get("download").href = `api/pictures/${this.picture.id}/result`;
    get("download").download = result.name;
    get("save").hidden = !folder;
    get("save").textContent = saved ? `Saved as ${saved}` : "Save beside original";
    get("save").disabled = Boolean(saved);
  }
}
