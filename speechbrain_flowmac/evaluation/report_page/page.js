"use strict";

// Tables sort by their headings; players play all systems of an utterance in
// step and fade from one to another. Names reach the page as text only.

// ---------------------------------------------------------------- elements

function make(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}

function makeButton(action, ...children) {
  const button = make("button", ...children);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

// ------------------------------------------------------------------ tables

function compare(a, b) {
  const difference = Number(a) - Number(b);
  if (!Number.isNaN(difference)) return difference;
  return a.localeCompare(b, "en", { numeric: true });
}

// Rows without a value stay last either way; the sort is stable.
function sortRows(body, column, sign) {
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === undefined || right === undefined) {
      return (left === undefined) - (right === undefined);
    }
    return sign * compare(left, right);
  });
  body.append(...rows);
}

function makeSortable(table) {
  const headings = [...table.tHead.querySelectorAll("[data-column]")];
  for (const heading of headings) {
    const label = heading.querySelector(".heading");
    const sort = () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const column = Number(heading.dataset.column);
      sortRows(table.tBodies[0], column, up ? 1 : -1);
    };
    label.replaceWith(makeButton(sort, label.textContent));
  }
}

document.querySelectorAll("table").forEach(makeSortable);

// ----------------------------------------------------------------- players

const FADE = 0.008; // seconds from one system to another
const LEAD = 0.02; // seconds until what is started sounds
const STEP = 1; // seconds that an arrow key seeks

const listening = document.getElementById("listening");
const sampleRate = Number(listening?.dataset.sampleRate);

let audioContext = null; // made by the first gesture, as browsers want it

function output() {
  audioContext ??= new AudioContext({ sampleRate });
  audioContext.resume();
  return audioContext;
}

async function decode(address) {
  const text = atob(address.slice(address.indexOf(",") + 1));
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const decoder = new OfflineAudioContext(1, 1, sampleRate);
  return decoder.decodeAudioData(bytes.buffer);
}

function fade(gain, level) {
  const now = audioContext.currentTime;
  gain.cancelScheduledValues(now);
  gain.setValueAtTime(gain.value, now);
  gain.linearRampToValueAtTime(level, now + FADE);
}

// How likely guessing gets as many right, or more, of so many trials.
function chance(right, trials) {
  let [term, sum] = [0.5 ** trials, 0];
  for (let k = trials; k >= right; k--) {
    sum += term;
    term *= k / (trials - k + 1);
  }
  return sum;
}

class Player {
  constructor(details) {
    this.details = details;
    this.versions = [...details.querySelectorAll(".versions figure")].map(
      (figure) => ({
        figure,
        label: figure.querySelector("figcaption").textContent,
        audio: figure.querySelector("audio"),
        view: figure.querySelector(".view"),
        buffer: null, // until it is decoded
      }));
    this.offset = 0; // seconds, where it plays from
    this.duration = 0;
    this.playing = false;
    this.playback = null; // what sounds: sources, gains, time of its start
    this.looping = false;
    this.test = null; // a blind test
    this.build();
    this.listAll();
    for (const type of ["pointerdown", "focusin"]) {
      details.addEventListener(type, () => activate(this));
    }
  }

  build() {
    const template = document.getElementById("transport");
    const transport = template.content.firstElementChild.cloneNode(true);
    const find = (name) => transport.querySelector(name);
    this.playButton = find(".play");
    this.bar = find("input");
    this.time = find(".time");
    this.loopButton = find(".loop");
    this.testButton = find(".blind");
    this.list = find(".choices");
    this.panel = find(".test");
    this.message = find(".error");
    this.playButton.addEventListener("click", () => this.toggle());
    this.bar.addEventListener("input", () => this.seek(Number(this.bar.value)));
    this.loopButton.addEventListener("click", () => this.loop());
    this.testButton.addEventListener("click", () => this.toggleTest());
    // A click leaves no focus behind, so that the space bar then plays.
    transport.addEventListener("mousedown", (event) => {
      if (!event.target.closest("button")) return;
      event.preventDefault();
      document.activeElement.blur();
    });
    this.details.querySelector("summary").after(transport);
    this.versions.forEach(({ audio, view }, i) => {
      audio.hidden = true;
      view.addEventListener("click", (event) => {
        const { left, width } = view.getBoundingClientRect();
        this.seek(((event.clientX - left) / width) * this.duration);
        if (!this.test) this.choose(i);
      });
    });
  }

  // Decodes, once.
  load() {
    this.loading ??= this.decodeAll().catch((error) => {
      this.playing = false;
      this.message.textContent =
        `This browser cannot decode the audio here (${error.message}).`;
      // its own player may still manage
      this.versions.forEach(({ audio }) => { audio.hidden = false; });
      this.show();
    });
    return this.loading;
  }

  async decodeAll() {
    const buffers = await Promise.all(
      this.versions.map((version) => decode(version.audio.src)));
    this.versions.forEach((version, i) => { version.buffer = buffers[i]; });
    this.duration = this.bar.max = buffers[0].duration;
    this.show();
  }

  // What can be heard: all systems, or A, B and X of a test.

  setChoices(choices, chosen) {
    this.choices = choices;
    this.buttons = choices.map(({ label }, i) => makeButton(
      () => this.choose(i),
      ...(i < 9 ? [make("kbd", String(i + 1)), " "] : []), label));
    this.list.replaceChildren(...this.buttons);
    this.choose(chosen);
  }

  listAll(chosen = 0) {
    this.setChoices(this.versions.map((version) => (
      { label: version.label, version })), chosen);
  }

  choose(index) {
    if (index >= this.choices.length) return;
    this.chosen = index;
    this.buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", i === index);
    });
    const heard = this.choices[index].version;
    this.versions.forEach((version) => {
      // in a test it would tell what X is
      version.figure.classList.toggle("heard", version === heard && !this.test);
    });
    this.playback?.gains.forEach((gain, i) => {
      fade(gain.gain, this.versions[i] === heard ? 1 : 0);
    });
  }

  // Playing

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  async play() {
    players.forEach((player) => player !== this && player.pause());
    this.playing = true;
    output(); // while the gesture lasts
    this.show();
    await this.load();
    if (this.playing && !this.playback) this.start();
  }

  pause() {
    this.offset = this.position();
    this.playing = false;
    this.stop();
    this.show();
  }

  // All versions start in the same sample and are never restarted by a
  // switch, so they stay in step.
  start() {
    const context = output();
    const master = new GainNode(context);
    master.connect(context.destination);
    const when = context.currentTime + LEAD;
    const heard = this.choices[this.chosen].version;
    const gains = [], sources = [];
    for (const version of this.versions) {
      const gain = new GainNode(context, { gain: version === heard ? 1 : 0 });
      const source = new AudioBufferSourceNode(context, {
        buffer: version.buffer, loop: this.looping,
      });
      source.connect(gain).connect(master);
      source.start(when, this.offset);
      gains.push(gain);
      sources.push(source);
    }
    sources[0].onended = () => this.end();
    this.playback = { sources, gains, master, when };
    this.tick();
  }

  stop() {
    if (!this.playback) return;
    const { sources, master } = this.playback;
    sources[0].onended = null;
    fade(master.gain, 0);
    sources.forEach((source) => source.stop(audioContext.currentTime + FADE));
    this.playback = null;
  }

  end() {
    this.playback = null;
    this.playing = false;
    this.offset = 0;
    this.show();
  }

  position() {
    if (!this.playback) return this.offset;
    const passed = Math.max(audioContext.currentTime - this.playback.when, 0);
    const position = this.offset + passed;
    return this.looping ? position % this.duration
      : Math.min(position, this.duration);
  }

  seek(position) {
    const sounding = this.playback !== null;
    this.stop();
    this.offset = Math.min(Math.max(position, 0), this.duration);
    if (sounding) this.start();
    this.show();
  }

  loop() {
    const position = this.position();
    this.looping = !this.looping;
    this.loopButton.setAttribute("aria-pressed", this.looping);
    if (!this.playback) return;
    // counts from here, however often it has looped
    this.offset = position;
    this.playback.when = Math.max(
      this.playback.when, audioContext.currentTime);
    this.playback.sources.forEach((source) => { source.loop = this.looping; });
  }

  tick() {
    this.show();
    if (this.playback) requestAnimationFrame(() => this.tick());
  }

  show() {
    const position = this.position();
    this.playButton.textContent = this.playing ? "Pause" : "Play";
    this.bar.value = position;
    const [now, all] = [position, this.duration].map((x) => x.toFixed(1));
    this.time.textContent = `${now} / ${all} s`;
    this.bar.setAttribute("aria-valuetext", `${now} of ${all} seconds`);
    const share = this.duration ? position / this.duration : 0;
    this.versions.forEach(({ view }) => {
      view.style.setProperty("--played", share);
    });
  }

  // Blind test

  toggleTest() {
    if (this.test) {
      const back = this.test.before;
      this.test = null;
      this.listAll(back);
    } else if (this.versions.length > 1) {
      this.test = new Test(this, this.chosen);
      this.test.restart();
    }
    this.panel.hidden = !this.test;
    this.testButton.setAttribute("aria-pressed", this.test !== null);
  }

  // Whether the key meant something

  press(key) {
    if (key === " ") this.toggle();
    else if (key === "ArrowLeft") this.seek(this.position() - STEP);
    else if (key === "ArrowRight") this.seek(this.position() + STEP);
    else if (key >= "1" && key <= "9") this.choose(Number(key) - 1);
    else if (key === "l") this.loop();
    else if (this.test && "abx".includes(key)) this.choose("abx".indexOf(key));
    else if (key === "x" || (this.test && key === "Escape")) this.toggleTest();
    else return false;
    return true;
  }

  inView() {
    const { top, bottom } = this.details.getBoundingClientRect();
    return this.details.open && bottom > 0 && top < window.innerHeight;
  }
}

// ABX: is X, which is A or B by chance, A or B?
class Test {
  constructor(player, before) {
    this.player = player;
    this.before = before; // what was heard, and will be again
    this.selects = [...player.panel.querySelectorAll("select")];
    this.selects.forEach((select, i) => {
      const labels = player.versions.map(({ label }) => label);
      select.replaceChildren(...labels.map((label) => make("option", label)));
      select.selectedIndex = [0, before || 1][i];
      select.onchange = () => this.restart();
    });
    this.answers = [...player.panel.querySelectorAll("button")];
    this.answers.forEach((button, i) => {
      button.onclick = () => this.answer(i);
    });
    this.status = player.panel.querySelector("[role=status]");
  }

  restart() {
    this.right = this.trials = 0;
    const [a, b] = this.selects.map((select) => select.selectedIndex);
    this.answers.forEach((button) => { button.disabled = a === b; });
    this.status.textContent = a === b
      ? "Choose two different systems." : "No answer yet.";
    this.next();
  }

  // Begins with A, for a change of X that is heard would tell something.
  next() {
    this.x = Math.random() < 0.5 ? 0 : 1;
    const pair = this.selects.map(
      ({ selectedIndex }) => this.player.versions[selectedIndex]);
    const choices = ["A", "B"].map((label, i) => ({ label, version: pair[i] }));
    choices.push({ label: "X", version: pair[this.x] });
    this.player.setChoices(choices, 0);
  }

  answer(guess) {
    this.trials += 1;
    this.right += guess === this.x;
    const p = chance(this.right, this.trials);
    this.status.textContent = `${this.right} of ${this.trials} right. `
      + "Guessing does as well with "
      + (p < 0.001 ? "p < 0.001." : `p = ${p.toFixed(3)}.`);
    this.next();
  }
}

const players = [...document.querySelectorAll("details.player")].map(
  (details) => new Player(details));

// Keys go to the player used last, or to the first one in view.
let active = players[0];

function activate(player) {
  active = player;
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.closest("select")) return;
  if (key === " " && target.closest("button, summary")) return;
  if (key.startsWith("Arrow") && target.closest(".scroll")) return;
  const player = active?.inView() ? active
    : players.find((other) => other.inView());
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (player?.press(name)) event.preventDefault();
});

// Decoding waits until an utterance is opened and scrolled to.
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    players.find(({ details }) => details.contains(target)).load();
  }
});
for (const { details } of players) {
  observer.observe(details.querySelector(".versions"));
}
