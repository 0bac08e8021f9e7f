/**
 * Descriptions: messages of a service, checked and converted to models.
 *
 * Every message may be hostile. Counts are checked before anything is converted: a message of a few
 * bytes may ask for arrays of millions of numbers.
 */

import type { Duration } from "@bufbuild/protobuf/wkt";
import { parameterError } from "../errors.ts";
import {
  type Classes,
  Column_Kind,
  type Column as ColumnMessage,
  type Input,
  type Limits as LimitsMessage,
  type Model as ModelMessage,
  Output_Link,
  Output_Pairwise,
  Output_Task,
  type Output as OutputMessage,
} from "../generated/sealserve/v1/model_pb.ts";
import { MAX_STEPS_BYTES } from "../steps/limits.ts";
import { printable } from "../text.ts";
import type { Column, ColumnKind } from "./column.ts";
import { InputGrid } from "./grid.ts";
import type { Limits, Model } from "./model.ts";
import { isKnown, offerOf } from "./offer-description.ts";
import { type Label, type Link, MAX_CURVE_POINTS, Output, type Pairwise, type Task } from "./output.ts";
import { Schema } from "./schema.ts";

const STEPS_ID = /^[0-9a-f]{64}$/;
const MAX_FEATURES = 1 << 20;
const MAX_SCORES = 1 << 16;
const MAX_CONNECTIONS = 64;
const MAX_OPEN_ITEMS = 1024;
const MAX_OFFERS = 32;
// The most scores that all offers together may describe: each has a centre and a radius.
const MAX_OFFERED_SCORES = 1 << 19;
const MAX_REQUIREMENTS = 64;
// The most bytes of the name of a column, or of a label, in UTF-8.
const MAX_TEXT_BYTES = 4096;
// The most bytes that a limit may name: far more than any machine has.
const MAX_BYTES = 2 ** 48;
// A hostile service may send 2^63 seconds, for which no timer can wait.
const MAX_SECONDS = 1e9;

const KINDS: ReadonlyMap<Column_Kind, ColumnKind> = new Map([
  [Column_Kind.NUMBER, "number"],
  [Column_Kind.INTEGER, "integer"],
  [Column_Kind.BOOLEAN, "boolean"],
  [Column_Kind.STRING, "string"],
  [Column_Kind.TEXT, "text"],
  [Column_Kind.UNUSED, "unused"],
]);
const TASKS: ReadonlyMap<Output_Task, Task> = new Map([
  [Output_Task.REGRESSION, "regression"],
  [Output_Task.CLASSIFICATION, "classification"],
  [Output_Task.MULTILABEL, "multilabel"],
]);
const LINKS: ReadonlyMap<Output_Link, Link> = new Map([
  [Output_Link.NONE, "none"],
  [Output_Link.LOGISTIC, "logistic"],
  [Output_Link.OVR_LOGISTIC, "ovr_logistic"],
  [Output_Link.SOFTMAX, "softmax"],
  [Output_Link.MODIFIED_HUBER, "modified_huber"],
  [Output_Link.CURVES, "curves"],
  [Output_Link.LOG, "log"],
  [Output_Link.LOG1P, "log1p"],
]);
const PAIRWISE: ReadonlyMap<Output_Pairwise, Pairwise> = new Map([
  [Output_Pairwise.UNSPECIFIED, "none"],
  [Output_Pairwise.VOTES, "votes"],
  [Output_Pairwise.PAIRS, "pairs"],
  [Output_Pairwise.CONFIDENCES, "confidences"],
]);

const LABEL_TYPES = { none: "none", booleans: "bool", integers: "int", doubles: "float", strings: "str" } as const;

/**
 * Check and convert a model.
 *
 * Offers in a layout, scheme or mode that this version does not know are left out.
 *
 * @throws SealserveError of kind "parameter": the description contradicts itself, is out of bounds,
 * or an offer has less than 128 bits of security.
 */
export function modelOf(message: ModelMessage): Model {
  const { input, output, limits } = message;
  if (input === undefined || output === undefined || limits === undefined) {
    throw parameterError(`model '${printable(message.name)}' has no input, no output or no limits`);
  }
  checkCounts(message, input, output);
  const name = `model '${message.name}'`;
  const schema = schemaOf(name, input);
  const grid = new InputGrid(name, input);
  const described = new Output(name, outputOf(name, output));
  const checkedLimits = limitsOf(name, limits);
  return {
    name: message.name,
    version: printable(message.version),
    configId: message.configId,
    schema,
    grid,
    output: described,
    offers: message.offers.filter(isKnown).map((offer) => offerOf(offer, output.scoreCount)),
    limits: checkedLimits,
    requires: message.requires,
    stepsId: input.stepsId,
    stepsBytes: input.stepsBytes,
    steps: undefined,
  };
}

/** Convert a duration to seconds, at most 1e9, about 32 years. */
export function secondsOf(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Math.min(Number(duration.seconds) + duration.nanos * 1e-9, MAX_SECONDS);
}

/**
 * Check a text that the client sends back as it is, and shows.
 *
 * @throws SealserveError of kind "parameter": it is too long, or has characters that cannot be
 * shown.
 */
export function checkIdentifier(what: string, text: string): void {
  if (printable(text) !== text) {
    throw parameterError(`${what} is too long, or has characters that cannot be shown`);
  }
}

function checkCounts(message: ModelMessage, input: Input, output: OutputMessage): void {
  const name = `model '${printable(message.name)}'`;
  checkIdentifier(`the name of ${name}`, message.name);
  checkIdentifier(`the configuration id of ${name}`, message.configId);
  if (message.requires.length > MAX_REQUIREMENTS) {
    throw parameterError(`${name} requires ${message.requires.length} capabilities: too many`);
  }
  checkTexts(`${name}: a required capability`, message.requires);
  const features = input.featureCount;
  const scores = output.scoreCount;
  if (features < 1 || features > MAX_FEATURES || scores < 1 || scores > MAX_SCORES) {
    throw parameterError(
      `${name} has ${features} features and ${scores} scores; 1 to ${MAX_FEATURES} and 1 to ${MAX_SCORES} are possible`,
    );
  }
  if (input.featureNames.length > 0 && input.featureNames.length !== features) {
    throw parameterError(`${name}: as many feature names as features are needed, or none`);
  }
  const isGiven = (values: readonly unknown[]) => values.length === 1 || values.length === features;
  if (![input.minimum, input.maximum, input.step].every(isGiven)) {
    throw parameterError(`${name}: minimum, maximum and step need one value each, or one for each feature`);
  }
  if ((input.group.length > 0 && input.group.length !== features) || input.exactlyOne.length > input.group.length) {
    throw parameterError(`${name}: groups need one number for each feature, and a feature each`);
  }
  if (message.offers.length > MAX_OFFERS || message.offers.length * scores > MAX_OFFERED_SCORES) {
    throw parameterError(`${name} has ${message.offers.length} offers for ${scores} scores: too many`);
  }
  const points = output.curves.reduce((total, curve) => total + curve.scores.length, 0);
  if ((output.curves.length > 0 && output.curves.length !== scores) || points > MAX_CURVE_POINTS) {
    throw parameterError(`${name}: its curves are not one for each score, or have too many points`);
  }
  const labelCount = output.classes?.labels.value?.values.length ?? 0;
  if (labelCount > scores + 1) {
    throw parameterError(`${name} has ${labelCount} labels for ${scores} scores: too many`);
  }
  checkTexts(`${name}: the name of a column`, input.featureNames);
  if (output.classes?.labels.case === "strings") {
    checkTexts(`${name}: a label`, output.classes.labels.value.values);
  }
  if (new Set(input.featureNames).size !== input.featureNames.length) {
    throw parameterError(`${name}: two columns have one name`);
  }
  checkColumns(name, input);
}

/** Check the number and the names of columns, and what names their steps. */
function checkColumns(name: string, input: Input): void {
  const { columns, stepsId, stepsBytes } = input;
  if (columns.length > MAX_FEATURES || (columns.length > 0 && input.featureNames.length > 0)) {
    throw parameterError(`${name} has ${columns.length} columns: too many, or beside the names of features`);
  }
  const names = columns.map((column) => column.name);
  checkTexts(`${name}: the name of a column`, names);
  if (new Set(names).size !== names.length && names.some((text) => text !== "")) {
    throw parameterError(`${name}: two columns have one name`);
  }
  if (columns.length > 0 && columns.every((column) => column.kind === Column_Kind.UNUSED)) {
    throw parameterError(`${name}: no step reads any of its columns`);
  }
  if (stepsId === "") {
    if (stepsBytes > 0 || (columns.length > 0 && columns.length !== input.featureCount)) {
      throw parameterError(`${name}: without steps, each column is a feature`);
    }
  } else if (columns.length === 0 || !STEPS_ID.test(stepsId) || stepsBytes < 1 || stepsBytes > MAX_STEPS_BYTES) {
    throw parameterError(`${name}: its steps have no columns or no SHA-256, or not 1 to ${MAX_STEPS_BYTES} bytes`);
  }
}

function checkTexts(what: string, texts: readonly string[]): void {
  // A UTF-16 unit takes up to three bytes, and only the few long texts are encoded.
  const encoder = new TextEncoder();
  if (texts.some((text) => text.length > MAX_TEXT_BYTES / 3 && encoder.encode(text).length > MAX_TEXT_BYTES)) {
    throw parameterError(`${what} has more than ${MAX_TEXT_BYTES} bytes`);
  }
}

function schemaOf(name: string, input: Input): Schema {
  if (input.columns.length === 0) {
    return new Schema(input.featureCount, input.featureNames);
  }
  const columns = input.columns.map((column) => columnOf(name, column));
  const names = columns.map((column) => column.name);
  return new Schema(columns.length, names.some((text) => text !== "") ? names : [], columns);
}

function columnOf(name: string, message: ColumnMessage): Column {
  const kind = KINDS.get(message.kind);
  if (kind === undefined) {
    throw parameterError(`${name}: a column is of a kind that is unknown to this version: update sealserve`);
  }
  const { minimum, maximum } = message;
  const isBounded = minimum !== undefined || maximum !== undefined;
  if (isBounded && (kind === "string" || kind === "text" || kind === "unused")) {
    throw parameterError(`${name}: a column of strings, or one that nothing reads, has no range`);
  }
  const [low, high] = [minimum ?? (kind === "boolean" ? 0 : -Infinity), maximum ?? (kind === "boolean" ? 1 : Infinity)];
  if (!(low <= high)) {
    throw parameterError(`${name}: the range of a column is empty, or is no range`);
  }
  return {
    name: message.name,
    kind,
    allowsMissing: message.allowsMissing,
    ...(minimum === undefined ? {} : { minimum }),
    ...(maximum === undefined ? {} : { maximum }),
  };
}

/** Convert an output, whose constructor checks the rest. */
export function outputOf(name: string, message: OutputMessage): ConstructorParameters<typeof Output>[1] {
  const task = TASKS.get(message.task);
  const link = LINKS.get(message.link);
  const pairwise = PAIRWISE.get(message.pairwise);
  if (task === undefined || link === undefined || pairwise === undefined) {
    throw parameterError(`${name}: its task or link function is unknown to this version: update sealserve`);
  }
  return {
    task,
    scoreCount: message.scoreCount,
    classes: labelsOf(name, message.classes),
    labelType: LABEL_TYPES[message.classes?.labels.case ?? "none"],
    link,
    scalarTarget: message.scalarTarget,
    keepsZeroRows: message.keepsZeroRows,
    hasNoDecisionFunction: message.hasNoDecisionFunction,
    memberCount: message.memberCount || 1,
    curves: message.curves.map(({ scores, probabilities }) => ({ scores, probabilities })),
    pairwise,
  };
}

function labelsOf(name: string, classes: Classes | undefined): readonly Label[] {
  const labels = classes?.labels;
  if (labels === undefined || labels.case === undefined) {
    return [];
  }
  if (labels.case === "integers") {
    const numbers = labels.value.values.map(Number);
    return numbers.every(Number.isSafeInteger) ? numbers : labels.value.values;
  }
  if (labels.case === "doubles" && !labels.value.values.every(Number.isFinite)) {
    throw parameterError(`${name}: a label is infinite or no number`);
  }
  return labels.value.values;
}

function limitsOf(name: string, message: LimitsMessage): Limits {
  const windowBytes = Number(message.windowBytes);
  const maxKeyBytes = Number(message.maxKeyBytes);
  const sizes = [message.maxMessageBytes, message.maxOpenItems, windowBytes];
  if (Math.min(...sizes) < 1 || Math.max(...sizes, maxKeyBytes) > MAX_BYTES) {
    throw parameterError(`${name}: its limits on bytes and items are zero or absurd`);
  }
  const itemTimeoutSeconds = secondsOf(message.itemTimeout);
  const idleTimeoutSeconds = secondsOf(message.idleTimeout);
  if (!(itemTimeoutSeconds > 0 && idleTimeoutSeconds >= 0)) {
    throw parameterError(`${name}: its time limits are zero or negative`);
  }
  return {
    maxMessageBytes: message.maxMessageBytes,
    maxOpenItems: Math.min(message.maxOpenItems, MAX_OPEN_ITEMS),
    itemTimeoutSeconds,
    windowBytes,
    maxKeyBytes,
    suggestedConnections: Math.min(Math.max(1, message.suggestedConnections), MAX_CONNECTIONS),
    idleTimeoutSeconds,
  };
}
