/** Pad: where a person draws, with a mouse, a finger, a pen or the keyboard. */

import { find } from "./lane.ts";
import type { Point } from "./raster.ts";

const STEP = 1 / 16;
const PEN = 1 / 11; // of a side: about as thick as the model's pen
const MOVES: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};
const STROKE_MS = 700;

/** A square to draw on. Strokes are in shares of its side. */
export class Pad {
  readonly #board: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  readonly #onChange: (strokes: readonly (readonly Point[])[]) => void;
  readonly #onSaid: (text: string) => void;
  #strokes: Point[][] = [];
  #pen: Point = { x: 0.5, y: 0.5 };
  #isDown = false;
  #pointer: number | undefined;
  #playing: AbortController | undefined;

  /**
   * @param board has a canvas that fills it.
   * @param onChange gets all strokes after each change.
   * @param onSaid gets what a person who does not see the pen should hear.
   */
  constructor(
    board: HTMLElement,
    onChange: (strokes: readonly (readonly Point[])[]) => void,
    onSaid: (text: string) => void,
  ) {
    const canvas = find(board, "canvas", HTMLCanvasElement);
    const context = canvas.getContext("2d");
    if (context === null) {
      throw new Error("this browser draws nothing");
    }
    this.#board = board;
    board.tabIndex = 0;
    this.#canvas = canvas;
    this.#context = context;
    this.#onChange = onChange;
    this.#onSaid = onSaid;
    board.addEventListener("pointerdown", (event) => this.#begin(event));
    board.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"] as const) {
      board.addEventListener(end, (event) => this.#end(event));
    }
    board.addEventListener("keydown", (event) => this.#key(event));
    for (const change of ["focus", "blur"]) {
      board.addEventListener(change, () => this.#paint());
    }
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  /** Remove all strokes. */
  clear(): void {
    this.#playing?.abort();
    this.#strokes = [];
    this.#isDown = false;
    this.#pen = { x: 0.5, y: 0.5 };
    this.#changed();
  }

  /** Draw strokes in the place of those that are there: at a hand's speed, unless motion is unwanted. */
  async play(strokes: readonly (readonly Point[])[]): Promise<void> {
    this.clear();
    this.#playing = new AbortController();
    const { signal } = this.#playing;
    const total = strokes.reduce((sum, stroke) => sum + stroke.length, 0);
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (const stroke of strokes) {
      const drawn: Point[] = [];
      this.#strokes.push(drawn);
      for (const point of stroke) {
        drawn.push(point);
        if (!isStill) {
          this.#changed();
          await new Promise((resolve) => setTimeout(resolve, STROKE_MS / total));
          if (signal.aborted) {
            return;
          }
        }
      }
    }
    this.#changed();
  }

  #begin(event: PointerEvent): void {
    if (this.#pointer !== undefined || event.button !== 0) {
      return;
    }
    this.#playing?.abort();
    this.#isDown = false;
    this.#pointer = event.pointerId;
    this.#board.setPointerCapture(event.pointerId);
    this.#strokes.push([this.#pointOf(event)]);
    this.#changed();
  }

  #move(event: PointerEvent): void {
    if (event.pointerId !== this.#pointer) {
      return;
    }
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length > 0 ? passed : [event]) {
      this.#strokes.at(-1)?.push(this.#pointOf(each));
    }
    this.#changed();
  }

  #end(event: PointerEvent): void {
    if (event.pointerId === this.#pointer) {
      this.#pointer = undefined;
    }
  }

  #pointOf({ clientX, clientY }: PointerEvent): Point {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return { x: inside((clientX - left) / width), y: inside((clientY - top) / height) };
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    const move = MOVES[event.key];
    if (move !== undefined) {
      this.#pen = { x: inside(this.#pen.x + move[0]), y: inside(this.#pen.y + move[1]) };
      if (this.#isDown) {
        this.#strokes.at(-1)?.push(this.#pen);
        this.#changed();
      } else {
        this.#paint();
      }
    } else if (event.key === " ") {
      this.#playing?.abort();
      this.#isDown = !this.#isDown;
      this.#onSaid(this.#isDown ? "The pen is down." : "The pen is up.");
      if (this.#isDown) {
        this.#strokes.push([this.#pen]);
      }
      this.#changed();
    } else if (event.key === "Backspace" || event.key === "Delete") {
      this.clear();
      this.#onSaid("The pad is empty.");
    } else {
      return;
    }
    event.preventDefault();
  }

  #changed(): void {
    this.#paint();
    this.#onChange(this.#strokes.filter((stroke) => stroke.length > 0));
  }

  #paint(): void {
    const canvas = this.#canvas;
    const size = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== size || canvas.height !== size) {
      canvas.width = canvas.height = size;
    }
    const context = this.#context;
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, size, size);
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = PEN * size;
    context.strokeStyle = style.color;
    for (const stroke of this.#strokes.filter(({ length }) => length > 0)) {
      context.beginPath();
      const [first, ...others] = stroke;
      context.moveTo(first.x * size, first.y * size);
      let last = first;
      for (const point of others) {
        // A curve from the middle of one piece of the line to that of the next.
        const to = { x: (last.x + point.x) / 2, y: (last.y + point.y) / 2 };
        context.quadraticCurveTo(last.x * size, last.y * size, to.x * size, to.y * size);
        last = point;
      }
      context.lineTo(last.x * size, last.y * size); // a dot is a line, too
      context.stroke();
    }
    if (this.#board.matches(":focus-visible")) {
      context.beginPath();
      context.lineWidth = size / 90;
      context.arc(this.#pen.x * size, this.#pen.y * size, (PEN * size) / 2, 0, 2 * Math.PI);
      context.strokeStyle = context.fillStyle = style.getPropertyValue("--readable");
      if (this.#isDown) {
        context.fill();
      }
      context.stroke();
    }
  }
}

function inside(share: number): number {
  return Math.min(Math.max(share, 0), 1);
}
