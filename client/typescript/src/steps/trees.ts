/** Trees: the leaves of decision trees that a row reaches. */

import type { CategorySplit, Trees } from "../generated/sealserve/v1/steps_pb.ts";
import { MAX_CATEGORY, MAX_DEPTH, MAX_MEMBERSHIPS, MAX_NODES, OPERATIONS_A_CALL } from "./limits.ts";
import { check, numericStep, pushIndicators, type Step, sumOf } from "./step.ts";

/** The sides to which categories go at a node. */
interface Split {
  readonly left: ReadonlySet<number>;
  readonly right: ReadonlySet<number>;
}

/** Has one output for each leaf: 1 for the leaf that the row reaches. */
export function treesStep(message: Trees, inputCount: number): Step {
  const { nodeCounts, left, right, features, thresholds, missesLeft } = message;
  const nodeCount = sumOf(nodeCounts, (count) => count);
  check(
    nodeCounts.length > 0 && nodeCounts.every((count) => count >= 1) && nodeCount <= MAX_NODES,
    `there are no trees, an empty one, or more than ${MAX_NODES} nodes`,
  );
  const lists = [left, right, features, thresholds, missesLeft];
  check(
    lists.every((values) => values.length === nodeCount),
    "each node needs children, an input, a threshold and a side for what is missing",
  );
  check(
    thresholds.every((value) => value > -Infinity),
    "a threshold is no number, or minus infinity",
  );
  check(
    features.every((feature) => feature < inputCount),
    "a node compares an input that there is not",
  );
  const depth = checkChildren(message);
  check(depth <= MAX_DEPTH, `a tree is deeper than ${MAX_DEPTH} nodes`);
  const splits = splitsOf(message, nodeCount);
  const leafPlaces = placesOfLeaves(message);
  const width = sumOf(nodeCounts, leafCount);
  return numericStep(
    inputCount,
    width,
    (inputs, outputs) => {
      const values = message.roundsToFloat32 ? inputs.map(Math.fround) : inputs;
      let start = 0;
      for (const count of nodeCounts) {
        let node = start;
        while (left[node] !== 0) {
          node = start + (goesLeft(message, node, splits.get(node), values[features[node]]) ? left : right)[node];
        }
        pushIndicators(outputs, leafCount(count), leafPlaces[node]);
        start += count;
      }
    },
    { operations: width + nodeCounts.length * (OPERATIONS_A_CALL + 8 * depth) },
  );
}

/** Categories of all splits, times the splits: what a table of them would take. */
export function membershipCount({ categorySplits }: Trees): number {
  const ends = categorySplits.flatMap(({ left, right }) => [left.at(-1) ?? -1, right.at(-1) ?? -1]);
  const greatest = ends.reduce((most, end) => Math.max(most, end), -1);
  return categorySplits.length * (greatest + 2);
}

function leafCount(nodeCount: number): number {
  return (nodeCount + 1) / 2;
}

function goesLeft(trees: Trees, node: number, split: Split | undefined, x: number): boolean {
  if (Number.isNaN(x)) {
    return trees.missesLeft[node];
  }
  if (split !== undefined) {
    return split.left.has(x) || (!split.right.has(x) && trees.missesLeft[node]);
  }
  return trees.strict ? x < trees.thresholds[node] : x <= trees.thresholds[node];
}

/** Check that children come after their parents, and have one each. Return the greatest depth. */
function checkChildren({ nodeCounts, left, right }: Trees): number {
  let start = 0;
  let deepest = 0;
  for (const count of nodeCounts) {
    const depths = new Int32Array(count).fill(-1);
    depths[0] = 0;
    for (let node = 0; node < count; node++) {
      const children = [left[start + node], right[start + node]];
      // A parent comes first, so that a node without a depth has none.
      check(depths[node] >= 0, "a node is the child of none");
      deepest = Math.max(deepest, depths[node]);
      if (children[0] === 0 && children[1] === 0) {
        continue;
      }
      for (const child of children) {
        check(
          child > node && child < count,
          "a child is not after its parent, or not in its tree: trees must not have cycles",
        );
        check(depths[child] < 0, "a node is the child of several nodes");
        depths[child] = depths[node] + 1;
      }
    }
    start += count;
  }
  return deepest;
}

function splitsOf(trees: Trees, nodeCount: number): ReadonlyMap<number, Split> {
  const { categorySplits, left } = trees;
  categorySplits.forEach(({ node }, k) => {
    const isAfter = k === 0 || node > categorySplits[k - 1].node;
    check(node < nodeCount && isAfter, "the nodes of category splits do not increase, or there are no such nodes");
    check(left[node] !== 0, "a leaf has a category split");
  });
  check(membershipCount(trees) <= MAX_MEMBERSHIPS, "there are too many categories of nodes");
  return new Map(categorySplits.map((split) => [split.node, splitOf(split)]));
}

function splitOf(split: CategorySplit): Split {
  for (const categories of [split.left, split.right]) {
    const isInOrder = (category: number, k: number) =>
      category < MAX_CATEGORY && (k === 0 || category > categories[k - 1]);
    check(categories.every(isInOrder), "categories of a node do not increase, or are too large");
  }
  const left = new Set(split.left);
  check(!split.right.some((category) => left.has(category)), "a category goes both to the left and to the right");
  return { left, right: new Set(split.right) };
}

/**
 * The place of each leaf among the leaves of its tree, by the number of its node over all trees.
 */
function placesOfLeaves({ nodeCounts, left }: Trees): Int32Array {
  const places = new Int32Array(left.length);
  let start = 0;
  for (const count of nodeCounts) {
    let place = 0;
    for (let node = start; node < start + count; node++) {
      places[node] = place;
      place += Number(left[node] === 0);
    }
    start += count;
  }
  return places;
}
