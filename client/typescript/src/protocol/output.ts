/** Output of a model: the meaning of its scores, which turns them into predictions. */

import { parameterError, SealserveError } from "../errors.ts";
import { countNotAbove } from "../search.ts";

/** The label of a class. Integers are numbers if all are safe, otherwise all are bigints. */
export type Label = string | number | bigint | boolean;

/** The type of the labels, by its name in Python. */
export type LabelType = "none" | "bool" | "int" | "float" | "str";

/** The kind of prediction: scores, one label for each row, or one indicator for each label. */
export type Task = "regression" | "classification" | "multilabel";

/** The function that turns scores into probabilities, or into the targets of a regression. */
export type Link = "none" | "logistic" | "ovr_logistic" | "softmax" | "modified_huber" | "curves" | "log" | "log1p";

/** What the scores mean of a classifier that compares each pair of classes. */
export type Pairwise = "none" | "votes" | "pairs" | "confidences";

/**
 * The prediction for a row: a label; a number, for a regression with one target; targets; or an
 * indicator, 0 or 1, for each label.
 */
export type Prediction = Label | Float64Array | Uint8Array;

/** A piecewise linear function of a score. */
export interface Curve {
  readonly scores: readonly number[];
  readonly probabilities: readonly number[];
}

/** What is described of an output. */
export interface OutputDescription {
  readonly task: Task;
  /** The length of a row of scores. */
  readonly scoreCount: number;
  /** The labels, in the order of the scores. Empty for a regression. */
  readonly classes: readonly Label[];
  readonly labelType: LabelType;
  readonly link: Link;
  /** Whether a prediction of a regression is one number. */
  readonly scalarTarget: boolean;
  /** Whether probabilities that are all zero stay so when they are divided by their sum. */
  readonly keepsZeroRows: boolean;
  /**
   * Whether the estimator of a classification has no decision_function, or one of other numbers.
   */
  readonly hasNoDecisionFunction: boolean;
  /** The number of classifiers whose probabilities are averaged. */
  readonly memberCount: number;
  /** One for each score, if the link is "curves". */
  readonly curves: readonly Curve[];
  readonly pairwise: Pairwise;
}

/** The most points of all curves together. */
export const MAX_CURVE_POINTS = 1 << 18;
const MAX_MEMBERS = 1 << 10;

/** The meaning of a model's scores. Its methods take the scores of a row. */
export class Output implements OutputDescription {
  readonly task: Task;
  readonly scoreCount: number;
  readonly classes: readonly Label[];
  readonly labelType: LabelType;
  readonly link: Link;
  readonly scalarTarget: boolean;
  readonly keepsZeroRows: boolean;
  readonly hasNoDecisionFunction: boolean;
  readonly memberCount: number;
  readonly curves: readonly Curve[];
  readonly pairwise: Pairwise;

  /** @throws SealserveError of kind "parameter": the fields contradict each other. */
  constructor(name: string, description: OutputDescription) {
    this.task = description.task;
    this.scoreCount = description.scoreCount;
    this.classes = description.classes;
    this.labelType = description.labelType;
    this.link = description.link;
    this.scalarTarget = description.scalarTarget;
    this.keepsZeroRows = description.keepsZeroRows;
    this.hasNoDecisionFunction = description.hasNoDecisionFunction;
    this.memberCount = description.memberCount;
    this.curves = description.curves;
    this.pairwise = description.pairwise;
    const fault = this.#fault();
    if (fault !== undefined) {
      throw parameterError(`${name}: ${fault}`);
    }
  }

  /** Whether there is a `predictProba`. */
  get hasProbabilities(): boolean {
    return this.task !== "regression" && this.link !== "none";
  }

  /** Whether a label is that of the greatest probability, which scores alone do not tell. */
  get decidesByProbabilities(): boolean {
    return this.memberCount > 1 || this.link === "curves";
  }

  /** Return the prediction. Of equal scores, the first class counts. */
  predict(scores: Float64Array): Prediction {
    if (this.task === "regression") {
      const targets = scores.map((score) => targetOf(this.link, score));
      return this.scalarTarget ? targets[0] : targets;
    }
    if (this.task === "multilabel") {
      return Uint8Array.from(scores, (score) => Number(score > 0));
    }
    return this.classes[this.#classIndex(scores)];
  }

  /**
   * Return the probabilities, in the order of the classes.
   *
   * @throws SealserveError of kind "noSuchMethod": there are none.
   */
  predictProba(scores: Float64Array): Float64Array {
    this.checkProbabilities();
    const width = this.#memberWidth;
    const total = new Float64Array(this.#classCount);
    for (let first = 0; first < this.scoreCount; first += width) {
      const member = this.#probabilitiesOfMember(scores.subarray(first, first + width), first);
      for (let k = 0; k < total.length; k++) {
        total[k] += member[k];
      }
    }
    return total.map((sum) => sum / this.memberCount);
  }

  /**
   * Return what the estimator's decision_function returns: the scores, one number for a binary
   * classifier, or the confidences of classes.
   *
   * @throws SealserveError of kind "noSuchMethod": the estimator has none.
   */
  decisionFunction(scores: Float64Array): number | Float64Array {
    this.checkDecisionFunction();
    if (this.pairwise === "votes" || this.pairwise === "confidences") {
      return pairs(scores).confidences;
    }
    return this.task === "classification" && this.scoreCount === 1 ? scores[0] : scores;
  }

  /** @throws SealserveError of kind "noSuchMethod": there are no probabilities. */
  checkProbabilities(): void {
    if (!this.hasProbabilities) {
      const other = this.hasNoDecisionFunction ? "predict" : "predict or decisionFunction";
      throw noSuchMethod("predictProba", `this model has no probabilities: use ${other}`);
    }
  }

  /** @throws SealserveError of kind "noSuchMethod": the estimator has no decision_function. */
  checkDecisionFunction(): void {
    if (this.task === "regression") {
      throw noSuchMethod(
        "decisionFunction",
        "a regression has no decision function: use predict, which returns scores",
      );
    }
    if (this.hasNoDecisionFunction || this.decidesByProbabilities) {
      throw noSuchMethod("decisionFunction", "this model has no decision function: use predict, which returns labels");
    }
  }

  #classIndex(scores: Float64Array): number {
    if (this.decidesByProbabilities) {
      return firstGreatest(this.predictProba(scores));
    }
    if (this.pairwise !== "none") {
      const { votes, confidences } = pairs(scores);
      return firstGreatest(this.pairwise === "confidences" ? confidences : votes);
    }
    return this.scoreCount === 1 ? Number(scores[0] > 0) : firstGreatest(scores);
  }

  #probabilitiesOfMember(scores: Float64Array, first: number): Float64Array {
    if (this.link === "softmax" && scores.length > 1) {
      // The shift cancels when they are divided by their sum. Without it, exp would be infinite.
      const greatest = Math.max(...scores);
      return this.#shares(scores.map((score) => Math.exp(score - greatest)));
    }
    const values = scores.map((score, index) => this.#probability(score, this.curves[first + index]));
    if (this.task === "multilabel") {
      return values;
    }
    return values.length === 1 ? Float64Array.of(1 - values[0], values[0]) : this.#shares(values);
  }

  #probability(score: number, curve: Curve | undefined): number {
    if (this.link === "modified_huber") {
      return (Math.min(Math.max(score, -1), 1) + 1) / 2;
    }
    if (curve !== undefined) {
      return valueOn(curve, score);
    }
    // A single score s of a softmax stands for the scores -s and s.
    return logistic(this.link === "softmax" ? 2 * score : score);
  }

  #shares(values: Float64Array): Float64Array {
    const sum = values.reduce((total, value) => total + value, 0);
    if (sum === 0) {
      return values.map(() => (this.keepsZeroRows ? 0 : 1 / values.length));
    }
    return values.map((value) => value / sum);
  }

  get #memberWidth(): number {
    return this.scoreCount / this.memberCount;
  }

  get #classCount(): number {
    if (this.task === "regression") {
      return 0;
    }
    if (this.pairwise !== "none") {
      return classCountOfPairs(this.scoreCount);
    }
    return this.task === "classification" && this.#memberWidth === 1 ? 2 : this.#memberWidth;
  }

  get #possibleLinks(): readonly Link[] {
    if (this.task === "regression") {
      return ["none", "log", "log1p"];
    }
    if (this.task === "multilabel") {
      return ["none", "logistic", "modified_huber"];
    }
    if (this.pairwise !== "none") {
      return ["none"];
    }
    const ofClassifier: readonly Link[] = [
      this.#memberWidth === 1 ? "logistic" : "ovr_logistic",
      "softmax",
      "modified_huber",
      "curves",
    ];
    return this.memberCount > 1 ? ofClassifier : ["none", ...ofClassifier];
  }

  #fault(): string | undefined {
    const { scoreCount, memberCount, curves, classes } = this;
    const isClassifier = this.task === "classification";
    if (scoreCount < 1) {
      return "a model must have at least one score";
    }
    if (this.scalarTarget && (this.task !== "regression" || scoreCount !== 1)) {
      return "only a regression with one score has a scalar target";
    }
    if (memberCount < 1 || memberCount > Math.min(MAX_MEMBERS, scoreCount) || scoreCount % memberCount !== 0) {
      return `${scoreCount} scores cannot be those of ${memberCount} classifiers`;
    }
    if (memberCount > 1 && !isClassifier) {
      return "only the probabilities of classifiers are averaged";
    }
    if (curves.length !== (this.link === "curves" ? scoreCount : 0)) {
      return `${curves.length} curves for ${scoreCount} scores with link ${this.link}`;
    }
    if (!curves.every(isCurve)) {
      return "a curve is no function, or has probabilities that are not 0 to 1";
    }
    const arePairs = isClassifier && memberCount === 1 && classCountOfPairs(scoreCount) > 2;
    if (this.pairwise !== "none" && !arePairs) {
      return `${scoreCount} scores are not those of all pairs of three classes or more`;
    }
    if (!this.#possibleLinks.includes(this.link)) {
      return `link ${this.link} does not fit ${this.task} with ${scoreCount} scores`;
    }
    if (classes.length !== this.#classCount) {
      return `${classes.length} classes, but the scores decide between ${this.#classCount}`;
    }
    return new Set(classes).size === classes.length ? undefined : "a class occurs twice";
  }
}

function noSuchMethod(method: string, message: string): SealserveError {
  return new SealserveError({ kind: "noSuchMethod", method }, message);
}

function targetOf(link: Link, score: number): number {
  return link === "log" ? Math.exp(score) : link === "log1p" ? Math.expm1(score) : score;
}

function logistic(score: number): number {
  // exp(-score) itself would overflow for scores of -710 and below.
  return score >= 0 ? 1 / (1 + Math.exp(-score)) : Math.exp(score) / (1 + Math.exp(score));
}

function firstGreatest(values: Float64Array): number {
  let found = 0;
  for (let k = 1; k < values.length; k++) {
    found = values[k] > values[found] ? k : found;
  }
  return found;
}

function isCurve(curve: Curve): boolean {
  const { scores, probabilities } = curve;
  return (
    scores.length >= 1 &&
    scores.length === probabilities.length &&
    scores.every((score, k) => Number.isFinite(score) && (k === 0 || score > scores[k - 1])) &&
    probabilities.every((value) => value >= 0 && value <= 1)
  );
}

function valueOn({ scores: xs, probabilities: ys }: Curve, score: number): number {
  const at = countNotAbove(xs, score);
  if (at === 0 || at === xs.length) {
    return at === 0 ? ys[0] : ys[ys.length - 1];
  }
  return ys[at - 1] + ((ys[at] - ys[at - 1]) / (xs[at] - xs[at - 1])) * (score - xs[at - 1]);
}

function classCountOfPairs(pairCount: number): number {
  const count = Math.floor((1 + Math.sqrt(1 + 8 * pairCount)) / 2);
  return (count * (count - 1)) / 2 === pairCount ? count : 0;
}

/** The votes for each class, and its confidence: votes + sum / (3 (|sum| + 1)). */
function pairs(scores: Float64Array): { readonly votes: Float64Array; readonly confidences: Float64Array } {
  const count = classCountOfPairs(scores.length);
  const votes = new Float64Array(count);
  const sums = new Float64Array(count);
  let pair = 0;
  for (let first = 0; first < count; first++) {
    for (let second = first + 1; second < count; second++) {
      const score = scores[pair++];
      votes[score > 0 ? first : second] += 1;
      sums[first] += score;
      sums[second] -= score;
    }
  }
  return { votes, confidences: votes.map((vote, k) => vote + sums[k] / (3 * (Math.abs(sums[k]) + 1))) };
}
