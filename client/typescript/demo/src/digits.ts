/** The tab on which a person draws a digit. */

import { Bars, find, Lane } from "./lane.ts";
import { MODES, type Mode } from "./messages.ts";
import { Notices, type Spoken } from "./notices.ts";
import { Pad } from "./pad.ts";
import { Line, type Predictor } from "./predictor.ts";
import { MOST_INK, rasterized, SIDE, type Stroke } from "./raster.ts";
import { sample } from "./samples.ts";

const DIGITS = Array.from({ length: 10 }, (_, digit) => String(digit));

/** Set up the tab. */
export function startDigits(root: HTMLElement, predictor: Predictor, spoken: Spoken): void {
  const reading = find(root, ".reading", HTMLElement);
  const sureness = find(root, ".sureness", HTMLElement);
  const pixels = find(root, ".pixels", HTMLCanvasElement);
  let row: number[] | undefined;

  const lanes = MODES.map((mode) => lane(mode));
  const notices = new Notices(find(root, ".notice", HTMLElement), "digits", ask);
  const pad = new Pad(find(root, ".pad", HTMLElement), changed, (text) => spoken.say(text));

  function lane(mode: Mode) {
    const shown = new Lane(find(root, ".lanes", HTMLElement), mode);
    const bars = new Bars(shown.outcome, DIGITS);
    const line = new Line(predictor, mode, "digits", {
      busy: (isBusy) => {
        shown.isBusy = isBusy;
      },
      answer(answer) {
        notices.set(mode, undefined);
        shown.show(answer);
        bars.show(answer.scores);
        tell(answer.label, Math.max(...answer.probabilities));
      },
      trouble(trouble) {
        clear();
        notices.set(mode, trouble);
        if (notices.areAll) {
          reading.textContent = sureness.textContent = ""; // of another drawing
        }
      },
    });
    const clear = () => {
      shown.clear();
      bars.clear();
    };
    clear();
    return { line, clear };
  }

  function tell(label: string, probability: number): void {
    reading.textContent = label;
    const percent = Math.floor(100 * probability);
    sureness.textContent = `${percent} % sure`;
    spoken.say(`The model reads ${label}, and is ${percent} % sure.`);
  }

  function ask(): void {
    for (const { line } of lanes) {
      void line.ask(row);
    }
  }

  function changed(strokes: readonly Stroke[]): void {
    const isEmpty = strokes.length === 0;
    const picture = rasterized(strokes);
    row = isEmpty ? undefined : picture;
    root.classList.toggle("blank", isEmpty);
    paint(pixels, picture);
    if (isEmpty) {
      reading.textContent = "";
      sureness.textContent = "";
      for (const { clear } of lanes) {
        clear();
      }
    }
    ask();
  }

  find(root, ".clear", HTMLButtonElement).addEventListener("click", () => pad.clear());
  const samples = find(root, ".samples", HTMLElement);
  for (const digit of DIGITS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = digit;
    button.setAttribute("aria-label", `Draw a ${digit}`);
    button.addEventListener("click", () => void pad.play(sample(Number(digit))));
    samples.append(button);
  }
  pad.clear();
}

/** Paint what the model reads. */
function paint(canvas: HTMLCanvasElement, picture: readonly number[]): void {
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  if (context === null) {
    return;
  }
  context.fillStyle = getComputedStyle(canvas).color;
  for (const [index, ink] of picture.entries()) {
    context.globalAlpha = ink / MOST_INK;
    context.fillRect(index % SIDE, Math.floor(index / SIDE), 1, 1);
  }
}
