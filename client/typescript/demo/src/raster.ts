/** Raster: what a person draws, as the model has learnt digits: 8 x 8 counts of ink. */

/** A point of a line, in any unit: only the shape of a drawing counts. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A line that was drawn without lifting the pen; a dot has one point. */
export type Stroke = readonly Point[];

/** The pixels of a side of a picture that the model reads. */
export const SIDE = 8;
/** The most ink of a pixel. */
export const MOST_INK = 16;

// The data set was made like this: a digit fills a bitmap of 32 x 32 dots, and a pixel counts the dots of 4 x 4.
const DOTS = 32;
const DOTS_A_PIXEL = DOTS / SIDE;
// What the digits of the data set have in common: their height, their width unless they are narrow, and their ink.
const WIDTH = 20;
const NARROW = 0.3;
const INK = 310;
const RADII = [1, 6] as const;
const HALVINGS = 8;

/**
 * Draw strokes as the digits of the data set are drawn: of the same height, centred, and with a pen
 * so thick that there is as much ink.
 *
 * @returns 64 integers of 0..16, row by row.
 */
export function rasterized(strokes: readonly Stroke[]): number[] {
  const lines = strokes.filter((stroke) => stroke.length > 0);
  let picture = new Array<number>(SIDE * SIDE).fill(0);
  if (lines.length === 0) {
    return picture;
  }
  let [low, high] = RADII as readonly [number, number];
  for (let halving = 0; halving < HALVINGS; halving++) {
    const radius = (low + high) / 2;
    picture = drawn(fitted(lines, radius), radius);
    if (picture.reduce((sum, ink) => sum + ink, 0) < INK) {
      low = radius;
    } else {
      high = radius;
    }
  }
  return picture;
}

/** Move and scale strokes into the bitmap, with room for the pen. */
function fitted(strokes: readonly Stroke[], radius: number): Stroke[] {
  const points = strokes.flat();
  const [left, width] = extent(points.map(({ x }) => x));
  const [top, height] = extent(points.map(({ y }) => y));
  const room = DOTS - 2 * radius;
  const natural = height > 0 ? width / height : Number.POSITIVE_INFINITY;
  const wide = natural < NARROW ? natural * room : Math.max(WIDTH - 2 * radius, 0);
  const scaleX = width > 0 ? wide / width : 0;
  const scaleY = height > 0 ? room / height : 0;
  return strokes.map((stroke) =>
    stroke.map(({ x, y }) => ({
      x: DOTS / 2 + scaleX * (x - left - width / 2),
      y: DOTS / 2 + scaleY * (y - top - height / 2),
    })),
  );
}

function extent(values: readonly number[]): readonly [least: number, length: number] {
  const least = values.reduce((one, other) => Math.min(one, other));
  return [least, values.reduce((one, other) => Math.max(one, other)) - least];
}

/** Count the dots of each pixel that are no farther from a line than the radius. */
function drawn(strokes: readonly Stroke[], radius: number): number[] {
  const picture = new Array<number>(SIDE * SIDE).fill(0);
  for (let row = 0; row < DOTS; row++) {
    for (let column = 0; column < DOTS; column++) {
      const dot = { x: column + 0.5, y: row + 0.5 };
      if (strokes.some((stroke) => touches(stroke, dot, radius))) {
        picture[SIDE * Math.floor(row / DOTS_A_PIXEL) + Math.floor(column / DOTS_A_PIXEL)] += 1;
      }
    }
  }
  return picture;
}

function touches(stroke: Stroke, dot: Point, radius: number): boolean {
  return stroke.some((point, index) => distance(stroke[Math.max(index - 1, 0)], point, dot) <= radius);
}

/** The distance of a dot from the line between two points. */
function distance(from: Point, to: Point, dot: Point): number {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const square = dx * dx + dy * dy;
  const along = square === 0 ? 0 : ((dot.x - from.x) * dx + (dot.y - from.y) * dy) / square;
  const share = Math.min(Math.max(along, 0), 1);
  return Math.hypot(from.x + share * dx - dot.x, from.y + share * dy - dot.y);
}
