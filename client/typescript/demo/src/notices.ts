/** Notices: the sentence that says what is wrong, and the one that a screen reader says. */

import { find } from "./lane.ts";
import { MODES, type Mode, type ModelName, type Trouble } from "./messages.ts";
import { sentence } from "./sentences.ts";

const QUIET_MS = 600;

/** The place for troubles of a model, of both modes. */
export class Notices {
  readonly #place: HTMLElement;
  readonly #text: HTMLElement;
  readonly #model: ModelName;
  readonly #troubles = new Map<Mode, Trouble>();

  constructor(place: HTMLElement, model: ModelName, tryAgain: () => void) {
    this.#place = place;
    this.#text = find(place, "p", HTMLElement);
    this.#model = model;
    find(place, "button", HTMLButtonElement).addEventListener("click", tryAgain);
    addEventListener("online", () => this.#troubles.size > 0 && tryAgain());
  }

  /** Whether no mode gives answers. */
  get areAll(): boolean {
    return this.#troubles.size === MODES.length;
  }

  /** Show a trouble of a mode; undefined if there is none any more. */
  set(mode: Mode, trouble: Trouble | undefined): void {
    if (trouble === undefined) {
      this.#troubles.delete(mode);
    } else {
      this.#troubles.set(mode, trouble);
    }
    const sentences = MODES.flatMap((each) => {
      const found = this.#troubles.get(each);
      return found === undefined ? [] : [sentence(found, each, this.#model, navigator.onLine)];
    });
    const text = [...new Set(sentences)].join(" ");
    if (text !== this.#text.textContent) {
      this.#text.textContent = text;
    }
    this.#place.hidden = text === "";
  }
}

/** What a screen reader says when nothing has changed for a moment. */
export class Spoken {
  readonly #place: HTMLElement;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(place: HTMLElement) {
    this.#place = place;
  }

  say(text: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#place.textContent = text;
    }, QUIET_MS);
  }
}
