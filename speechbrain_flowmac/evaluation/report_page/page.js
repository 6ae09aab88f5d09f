"use strict";

// Tables sort by their headings; players play all systems of an utterance in
// step and fade from one to another. Names reach the page as text only.

// ---------------------------------------------------------------- elements

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function makeButton(attributes, action, ...children) {
  const button = make("button", { type: "button", ...attributes }, ...children);
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
    label.replaceWith(makeButton({}, sort, label.textContent));
  }
}

document.querySelectorAll("table").forEach(makeSortable);

// ------------------------------------------------------------------- views

const MAX_FREQUENCY = 12000; // Hz, at the top of a spectrogram
const RANGE = 80; // dB below the reference's maximum are still seen
const COLUMNS = 600;
const WAVE_HEIGHT = 96;
const WAVE_COLOUR = "#4a86d8"; // seen on white and on black

// Dark to bright, so that it also reads in grey
const COLOURS = [
  [6, 6, 20],
  [52, 22, 96],
  [132, 34, 108],
  [208, 68, 70],
  [246, 150, 50],
  [252, 240, 190],
];

// 256 colours between those above, as pixels of a canvas
const PALETTE = Uint32Array.from({ length: 256 }, (_, i) => {
  const place = (i / 255) * (COLOURS.length - 1);
  const k = Math.min(Math.floor(place), COLOURS.length - 2);
  const colour = COLOURS[k].map(
    (c, j) => c + (place - k) * (COLOURS[k + 1][j] - c));
  const bytes = Uint8ClampedArray.of(...colour, 255);
  return new Uint32Array(bytes.buffer)[0];
});

// Discrete Fourier transform of a power of two, in place, by decimation in
// time.
class Transform {
  constructor(size) {
    this.size = size;
    const angles = Array.from(
      { length: size / 2 }, (_, k) => (-2 * Math.PI * k) / size);
    this.cosines = Float64Array.from(angles, Math.cos);
    this.sines = Float64Array.from(angles, Math.sin);
  }

  run(real, imaginary) {
    const { size, cosines, sines } = this;
    for (let i = 1, j = 0; i < size; i++) {
      let bit = size >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        [real[i], real[j]] = [real[j], real[i]];
        [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / 2 / half;
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const [cosine, sine] = [cosines[k * step], sines[k * step]];
          const i = start + k;
          const j = i + half;
          const re = real[j] * cosine - imaginary[j] * sine;
          const im = real[j] * sine + imaginary[j] * cosine;
          real[j] = real[i] - re;
          imaginary[j] = imaginary[i] - im;
          real[i] += re;
          imaginary[i] += im;
        }
      }
    }
  }
}

// Levels in dB, one array of bins per column, by Hann windows of about 40 ms.
function spectrogram(signal, rate) {
  const size = 2 ** Math.round(Math.log2(0.04 * rate));
  const bins = Math.round((Math.min(MAX_FREQUENCY, rate / 2) / rate) * size);
  const window = Float64Array.from({ length: size }, (_, i) =>
    0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 0.5)) / size));
  const transform = new Transform(size);
  const real = new Float64Array(size);
  const imaginary = new Float64Array(size);
  return Array.from({ length: COLUMNS }, (_, column) => {
    const middle = ((column + 0.5) / COLUMNS) * signal.length;
    const start = Math.round(middle - size / 2);
    for (let i = 0; i < size; i++) {
      real[i] = window[i] * (signal[start + i] || 0);
    }
    imaginary.fill(0);
    transform.run(real, imaginary);
    return Float32Array.from({ length: bins }, (_, k) =>
      10 * Math.log10(real[k] ** 2 + imaginary[k] ** 2 + 1e-12));
  });
}

function drawSpectrogram(canvas, levels, rate, top) {
  const bins = levels[0].length;
  const width = rate / 2 / bins; // Hz; a rate below 24 kHz leaves a rest dark
  const height = rate / 2 < MAX_FREQUENCY
    ? Math.round(MAX_FREQUENCY / width) : bins;
  canvas.width = COLUMNS;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(COLUMNS, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < COLUMNS; x++) {
      const level = levels[x][height - 1 - y] ?? -Infinity;
      const share = Math.min(Math.max((level - top) / RANGE + 1, 0), 1);
      pixels[y * COLUMNS + x] = PALETTE[Math.round(255 * share)];
    }
  }
  context.putImageData(image, 0, 0);
}

function drawWave(canvas, signal, peak) {
  canvas.width = COLUMNS;
  canvas.height = WAVE_HEIGHT;
  const context = canvas.getContext("2d");
  context.fillStyle = WAVE_COLOUR;
  const place = (value) => (0.5 - 0.48 * (value / peak)) * WAVE_HEIGHT;
  for (let x = 0; x < COLUMNS; x++) {
    const start = Math.floor((x / COLUMNS) * signal.length);
    const end = Math.ceil(((x + 1) / COLUMNS) * signal.length);
    let [low, high] = [0, 0];
    for (let i = start; i < end; i++) {
      if (signal[i] < low) low = signal[i];
      if (signal[i] > high) high = signal[i];
    }
    context.fillRect(x, place(high), 1, place(low) - place(high) + 1);
  }
}

function peakOf(values) {
  return values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
}

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

// Cut or filled with silence: all versions must loop together.
function fit(buffer, length) {
  if (buffer.length === length) return buffer;
  const { numberOfChannels, sampleRate } = buffer;
  const fitted = new AudioBuffer({ numberOfChannels, length, sampleRate });
  for (let i = 0; i < numberOfChannels; i++) {
    fitted.copyToChannel(buffer.getChannelData(i).subarray(0, length), i);
  }
  return fitted;
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
      (figure) => new Version(figure, this));
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
    const toggle = () => this.toggle();
    this.playButton = makeButton({ class: "play" }, toggle, "Play");
    this.bar = make("input", {
      type: "range", min: 0, max: 0, step: 0.01, "aria-label": "Position",
    });
    this.bar.value = 0;
    this.bar.addEventListener("input", () => this.seek(Number(this.bar.value)));
    this.time = make("span", { class: "time" });
    this.loopButton = makeButton(
      { "aria-pressed": false }, () => this.loop(), "Loop");
    this.testButton = makeButton(
      { "aria-pressed": false }, () => this.toggleTest(), "Blind test");
    this.list = make("div", {
      class: "choices", role: "group", "aria-label": "System to hear",
    });
    this.panel = make("div", { class: "test" });
    this.message = make("p", { class: "error", role: "alert" });
    const transport = make("div", { class: "transport" },
      make("div", { class: "controls" }, this.playButton, this.bar, this.time,
        this.loopButton, this.testButton),
      this.list, this.panel, this.message);
    // A click leaves no focus behind, so that the space bar then plays.
    transport.addEventListener("mousedown", (event) => {
      if (!event.target.closest("button")) return;
      event.preventDefault();
      document.activeElement.blur();
    });
    this.details.querySelector("summary").after(transport);
  }

  // Decodes and draws, once.
  load() {
    this.loading ??= this.decodeAll().catch((error) => {
      this.playing = false;
      this.message.textContent =
        `This browser cannot decode the audio here (${error.message}).`;
      this.versions.forEach((version) => version.fallBack());
      this.show();
    });
    return this.loading;
  }

  async decodeAll() {
    const buffers = await Promise.all(
      this.versions.map((version) => decode(version.audio.src)));
    const { length, duration } = buffers[0];
    this.versions.forEach((version, i) => {
      version.buffer = fit(buffers[i], length);
    });
    this.duration = duration;
    this.bar.max = duration;
    this.show();
    this.draw();
  }

  // All have the same scales; the first, the reference, gives that of levels.
  async draw() {
    const signals = this.versions.map(({ buffer }) => buffer.getChannelData(0));
    const peak = Math.max(...signals.map(peakOf)) || 1;
    let top;
    for (const [i, { wave, spectrum }] of this.versions.entries()) {
      await new Promise((done) => setTimeout(done)); // let it play meanwhile
      const signal = signals[i];
      const levels = spectrogram(signal, sampleRate);
      top ??= levels.reduce((most, x) => x.reduce((a, b) => Math.max(a, b), most),
        -Infinity);
      drawWave(wave, signal, peak);
      drawSpectrogram(spectrum, levels, sampleRate, top);
    }
    this.details.dataset.drawn = "";
  }

  // What can be heard: all systems, or A, B and X of a test.

  setChoices(choices, chosen) {
    this.choices = choices;
    this.buttons = choices.map(({ label }, i) => makeButton(
      {}, () => this.choose(i),
      ...(i < 9 ? [make("kbd", {}, String(i + 1)), " "] : []), label));
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
      // would tell what X is
      version.mark(version === heard && !this.test);
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
    this.versions.forEach((version) => {
      version.playhead.style.left = `${100 * share}%`;
    });
  }

  // Blind test

  toggleTest() {
    if (this.test) {
      const back = this.test.before;
      this.test = null;
      this.panel.replaceChildren();
      this.listAll(back);
    } else if (this.versions.length > 1) {
      const before = this.chosen;
      this.test = new Test(this, before);
      this.panel.replaceChildren(...this.test.elements);
      this.test.restart();
    }
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

// What one system made of an utterance
class Version {
  constructor(figure, player) {
    this.figure = figure;
    this.label = figure.querySelector("figcaption").textContent;
    this.audio = figure.querySelector("audio");
    this.audio.hidden = true;
    this.buffer = null;
    const canvas = (what) => make("canvas", {
      role: "img", class: what.toLowerCase(), "aria-label": `${what} of ${this.label}`,
    });
    this.wave = canvas("Waveform");
    this.spectrum = canvas("Spectrogram");
    this.playhead = make("div", { class: "playhead" });
    const scale = ["12 kHz", "0"].map((text) => make("span", {}, text));
    const view = make("div", { class: "view" }, this.wave,
      make("div", { class: "scaled" }, this.spectrum,
        make("div", { class: "scale", "aria-hidden": true }, ...scale)),
      this.playhead);
    figure.append(view);
    view.addEventListener("click", (event) => {
      const { left, width } = view.getBoundingClientRect();
      player.seek(((event.clientX - left) / width) * player.duration);
      if (!player.test) player.choose(player.versions.indexOf(this));
    });
  }

  mark(heard) {
    this.figure.classList.toggle("heard", heard);
  }

  // The browser's own player may still manage.
  fallBack() {
    this.audio.hidden = false;
  }
}

// ABX: is X, which is A or B by chance, A or B?
class Test {
  constructor(player, before) {
    this.player = player;
    this.before = before; // what was heard, and will be again
    const select = (label, chosen) => {
      const options = player.versions.map((version, i) => (
        make("option", { value: i }, version.label)));
      const element = make("select", {}, ...options);
      element.value = chosen;
      element.addEventListener("change", () => this.restart());
      return [make("label", {}, `${label} `, element), element];
    };
    const [labelA, a] = select("A", 0);
    const [labelB, b] = select("B", before || 1);
    this.selects = [a, b];
    this.answers = ["A", "B"].map((letter, i) => makeButton(
      {}, () => this.answer(i), `X is ${letter}`));
    this.status = make("p", { role: "status" });
    this.elements = [
      make("p", {}, "X is A or B, drawn anew for every trial. Decide how many "
        + "trials you will do before you begin."),
      make("div", { class: "controls" }, labelA, labelB),
      make("div", { class: "controls" }, ...this.answers),
      this.status,
    ];
  }

  restart() {
    this.right = this.trials = 0;
    const [a, b] = this.selects.map((select) => select.value);
    this.answers.forEach((button) => { button.disabled = a === b; });
    this.status.textContent = a === b
      ? "Choose two different systems." : "No answer yet.";
    this.next();
  }

  // Begins with A, for a change of X that is heard would tell something.
  next() {
    this.x = Math.random() < 0.5 ? 0 : 1;
    const pair = this.selects.map((s) => this.player.versions[s.value]);
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
