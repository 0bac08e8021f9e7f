/** Text: counts of the words, characters or n-grams of a text. */

import {
  Text_StripAccents as StripAccents,
  type Text,
  Text_Tokens as Tokens,
} from "../generated/sealserve/v1/steps_pb.ts";
import { distinct } from "./categories.ts";
import { MAX_CHARACTERS, MAX_NGRAM, MAX_VALUES, OPERATIONS_A_SIZE } from "./limits.ts";
import { murmurHash } from "./murmur-hash.ts";
import { check, type Step, unknownStep } from "./step.ts";
import { COMBINING, SPACES, UNASSIGNED, WORDS } from "./unicode-tables.ts";

const KNOWN_TOKENS: readonly Tokens[] = [Tokens.WORDS, Tokens.CHARACTERS, Tokens.CHARACTERS_IN_WORDS];
const KNOWN_ACCENTS: readonly StripAccents[] = [StripAccents.NONE, StripAccents.UNICODE, StripAccents.ASCII];

/** Counts the n-grams of a text that are terms, or spreads them over outputs by their hash. */
export function textStep(message: Text, inputCount: number): Step {
  if (!KNOWN_TOKENS.includes(message.tokens) || !KNOWN_ACCENTS.includes(message.stripAccents)) {
    throw unknownStep();
  }
  const { vocabulary, hashWidth, ngramMin, ngramMax, stopWords } = message;
  distinct("a term", vocabulary);
  const stopped = new Set(distinct("a stop word", stopWords));
  check(inputCount === 1, "one text is needed as input");
  check(
    vocabulary.length > 0 !== hashWidth > 0 && hashWidth <= MAX_VALUES,
    "either a vocabulary or the number of hashes is needed",
  );
  check(!message.alternatesSign || hashWidth > 0, "only hashes alternate their sign");
  check(ngramMin >= 1 && ngramMin <= ngramMax && ngramMax <= MAX_NGRAM, `n-grams have 1 to ${MAX_NGRAM} tokens`);
  check(
    message.minWordLength <= MAX_CHARACTERS && (stopWords.length === 0 || message.tokens === Tokens.WORDS),
    "the length of words is out of range, or stop words are not for characters",
  );
  const width = hashWidth || vocabulary.length;
  const count = hashWidth > 0 ? hashed(hashWidth, message.alternatesSign) : ofTerms(vocabulary);
  return {
    width,
    outputKind: "number",
    operations: 1 + width + OPERATIONS_A_SIZE * (ngramMax - ngramMin + 1),
    textCount: vocabulary.length + stopWords.length,
    kindOfInput: () => "text",
    apply(inputs, outputs) {
      const [text] = inputs;
      const counts = new Float64Array(width);
      const isRefused = typeof text !== "string" || isTooLong(text);
      if (!isRefused) {
        for (const ngram of ngramsOf(message, stopped, text)) {
          count(ngram, counts);
        }
      }
      for (const value of counts) {
        outputs.push(value);
      }
      return isRefused;
    },
  };
}

type Count = (ngram: string, counts: Float64Array) => void;

function ofTerms(vocabulary: readonly string[]): Count {
  const places = new Map(vocabulary.map((term, place) => [term, place]));
  return (ngram, counts) => {
    const place = places.get(ngram);
    if (place !== undefined) {
      counts[place] += 1;
    }
  };
}

function hashed(width: number, alternatesSign: boolean): Count {
  const encoder = new TextEncoder();
  return (ngram, counts) => {
    const hash = murmurHash(encoder.encode(ngram));
    counts[Math.abs(hash) % width] += hash < 0 && alternatesSign ? -1 : 1;
  };
}

function isTooLong(text: string): boolean {
  return text.length > MAX_CHARACTERS && lengthOf(text) > MAX_CHARACTERS;
}

/** The number of characters, of which some take two units of UTF-16. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) {
    length++;
  }
  return length;
}

function* ngramsOf(message: Text, stopped: ReadonlySet<string>, given: string): Generator<string> {
  const text = prepared(message, given);
  if (message.tokens === Tokens.WORDS) {
    const isKept = (word: string) => lengthOf(word) >= message.minWordLength && !stopped.has(word);
    yield* windows((text.match(WORDS) ?? []).filter(isKept), message, " ");
  } else {
    const spaced = text.replace(REPEATED_SPACES, " ");
    if (message.tokens === Tokens.CHARACTERS) {
      yield* windows(Array.from(spaced), message, "");
    } else {
      for (const piece of spaced.split(SPACE_RUNS).filter((part) => part !== "")) {
        yield* inPiece(Array.from(` ${piece} `), message);
      }
    }
  }
}

const REPEATED_SPACES = new RegExp(`${SPACES}{2,}`, "gu");
const SPACE_RUNS = new RegExp(`${SPACES}+`, "u");

/** Yield the n-grams of tokens, joined. */
function* windows(tokens: readonly string[], { ngramMin, ngramMax }: Text, joint: string): Generator<string> {
  for (let size = ngramMin; size <= ngramMax; size++) {
    for (let first = 0; first + size <= tokens.length; first++) {
      yield tokens.slice(first, first + size).join(joint);
    }
  }
}

/** Yield the n-grams of a piece. One that would be as long as the piece or longer is the piece. */
function* inPiece(piece: readonly string[], { ngramMin, ngramMax }: Text): Generator<string> {
  for (let size = ngramMin; size <= ngramMax; size++) {
    if (size >= piece.length) {
      yield piece.join("");
      return;
    }
    for (let first = 0; first + size <= piece.length; first++) {
      yield piece.slice(first, first + size).join("");
    }
  }
}

/** Convert to lower case and remove accents. What Unicode 14.0 does not assign stays as it is. */
function prepared(message: Text, text: string): string {
  let joined = "";
  let at = 0;
  for (const match of text.matchAll(UNASSIGNED)) {
    joined += preparedPart(message, text.slice(at, match.index)) + match[0];
    at = match.index + match[0].length;
  }
  joined += preparedPart(message, text.slice(at));
  return message.stripAccents === StripAccents.ASCII ? joined.replace(/[^\0-\x7f]/gu, "") : joined;
}

function preparedPart(message: Text, text: string): string {
  const lower = message.lowercase ? text.toLowerCase() : text;
  return message.stripAccents === StripAccents.NONE ? lower : lower.normalize("NFKD").replace(COMBINING, "");
}
