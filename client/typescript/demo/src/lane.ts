/** Lane: shows what left the page in one mode, how long each step took, and what came back. */

import type { Answer, Mode, Times } from "./messages.ts";

// A strip is as wide as a ciphertext of 2048 coefficients has whole rows.
const STRIP_COLUMNS = 256;
const SHOWN_BYTES = 24;
const LEAST_RANGE = 6;

const TITLES: Readonly<Record<Mode, readonly [title: string, note: string]>> = {
  open: ["Open weights", "Replies do not hide the model."],
  private: ["Private weights", "Replies tell the scores only."],
};
const bytes = new Intl.NumberFormat("en");

/** How the answer of a lane is shown, below what is the same for every model. */
export type ShowsAnswer = (answer: Answer) => void;

/** The part of the page of one mode, made from the template. */
export class Lane {
  readonly #root: HTMLElement;
  readonly #strip: HTMLCanvasElement;
  #lastSent: Uint8Array | undefined;

  constructor(place: Element, mode: Mode) {
    const template = find(document, "#lane", HTMLTemplateElement);
    this.#root = find(document.importNode(template.content, true), "article", HTMLElement);
    this.#root.dataset.mode = mode;
    const [title, note] = TITLES[mode];
    this.#part(".title").textContent = title;
    this.#part(".note").textContent = note;
    this.#strip = find(this.#root, "canvas", HTMLCanvasElement);
    place.append(this.#root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  /** Where the answer goes. */
  get outcome(): HTMLElement {
    return this.#part(".outcome");
  }

  /** Tell that a question is under way, or none. */
  set isBusy(isBusy: boolean) {
    this.#root.setAttribute("aria-busy", String(isBusy));
  }

  /** Show what went over the wire. */
  show({ sent, receivedBytes, keyBytes, times }: Answer): void {
    this.#root.classList.remove("empty");
    this.#lastSent = sent;
    this.#paint();
    this.#part(".sent").textContent = `${bytes.format(sent.length)} B`;
    this.#part(".received").textContent = `${bytes.format(receivedBytes)} B`;
    this.#part(".key").textContent = keyBytes > 0 ? `${bytes.format(keyBytes)} B` : "none";
    this.#showTimes(times);
  }

  /** Show nothing. */
  clear(): void {
    this.#root.classList.add("empty");
    this.#lastSent = undefined;
    this.#paint();
    for (const name of [".sent", ".received", ".hex"]) {
      this.#part(name).textContent = "–";
    }
    this.#showTimes(undefined);
  }

  #showTimes(times: Times | undefined): void {
    for (const name of ["encrypt", "away", "decrypt"] as const) {
      const step = this.#part(`.${name}`);
      const milliseconds = times?.[name];
      find(step, ".ms", HTMLElement).textContent = milliseconds === undefined ? "–" : `${milliseconds.toFixed(1)} ms`;
      step.style.setProperty("--ms", String(Math.max(milliseconds ?? 1, 0.1)));
    }
  }

  /** Show each byte as a dot: the greater, the stronger. */
  #paint(): void {
    const sent = this.#lastSent ?? new Uint8Array(STRIP_COLUMNS * 56);
    const rows = Math.ceil(sent.length / STRIP_COLUMNS);
    this.#strip.width = STRIP_COLUMNS;
    this.#strip.height = rows;
    const context = this.#strip.getContext("2d");
    if (context === null || this.#lastSent === undefined) {
      return;
    }
    const image = context.createImageData(STRIP_COLUMNS, rows);
    const [red, green, blue] = getComputedStyle(this.#strip).color.match(/\d+/g)?.map(Number) ?? [0, 0, 0];
    for (const [index, byte] of sent.entries()) {
      image.data.set([red, green, blue, byte], 4 * index);
    }
    context.putImageData(image, 0, 0);
    const middle = sent.subarray(sent.length >> 1, (sent.length >> 1) + SHOWN_BYTES);
    this.#part(".hex").textContent = Array.from(middle, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  }

  #part(selector: string): HTMLElement {
    return find(this.#root, selector, HTMLElement);
  }
}

/** Bars of scores, from zero up and down, one a label. All that are made share no scale. */
export class Bars {
  readonly #items: HTMLLIElement[];
  #range = LEAST_RANGE;

  constructor(place: HTMLElement, labels: readonly string[]) {
    const list = document.createElement("ol");
    list.className = "bars";
    this.#items = labels.map((label) => {
      const item = document.createElement("li");
      const [bar, name, score] = ["bar", "name", "score"].map((part) => {
        const span = document.createElement("span");
        span.className = part;
        return span;
      });
      name.textContent = label;
      item.append(bar, name, score);
      list.append(item);
      return item;
    });
    place.append(list);
    this.clear();
  }

  /** Show scores; the best one stands out. */
  show(scores: readonly number[]): void {
    const best = scores.indexOf(Math.max(...scores));
    // It never shrinks, so that bars of two moments can be compared.
    this.#range = Math.max(this.#range, ...scores.map(Math.abs));
    for (const [index, item] of this.#items.entries()) {
      const score = scores[index];
      item.style.setProperty("--share", (score / this.#range).toFixed(3));
      item.classList.toggle("best", index === best);
      find(item, ".score", HTMLElement).textContent = `score ${score.toFixed(1)}`;
    }
  }

  /** Show nothing. */
  clear(): void {
    for (const item of this.#items) {
      item.style.setProperty("--share", "0");
      item.classList.remove("best");
      find(item, ".score", HTMLElement).textContent = "no score";
    }
  }
}

/** Return the element that a selector finds, of a type. */
export function find<T extends Element>(root: ParentNode, selector: string, type: new () => T): T {
  const found = root.querySelector(selector);
  if (!(found instanceof type)) {
    throw new Error(`the page has no ${selector}`);
  }
  return found;
}
