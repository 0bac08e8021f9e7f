/**
 * Texts of the other side, made safe to show in errors and logs.
 *
 * A hostile service chooses the names and error texts that it sends. Shown as they are, they could
 * move a terminal's cursor, forge a line of a log, or reverse the order of what follows.
 */

/** The most characters of a name that are shown. */
export const MAX_NAME_CHARACTERS = 256;
/** The most characters of an error text of a service that are shown. */
export const MAX_MESSAGE_CHARACTERS = 1000;

const MAX_COLUMN_CHARACTERS = 64;
const CUT = "...";
// Control characters, line breaks, marks of direction, characters without a shape, surrogates, and
// spaces other than the common one.
const UNPRINTABLE = /[\p{C}\p{Z}]/gu;
const ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Return a text in which everything that is not printable is escaped; a longer one is cut. */
export function printable(text: string, maxCharacters = MAX_NAME_CHARACTERS): string {
  // No more is looked at: the rest may be megabytes.
  const head = Array.from(text.slice(0, 2 * (maxCharacters + 1))).slice(0, maxCharacters + 1);
  const shown = head.join("").replace(UNPRINTABLE, escaped);
  const characters = Array.from(shown);
  return characters.length <= maxCharacters ? shown : characters.slice(0, maxCharacters - CUT.length).join("") + CUT;
}

/** Return a text between quotes, which it cannot end by itself. */
export function quoted(text: string, maxCharacters = MAX_COLUMN_CHARACTERS): string {
  const literal = printable(text.slice(0, 2 * maxCharacters).replace(/[\\']/g, "\\$&"), maxCharacters);
  return `'${literal}'`;
}

/** Return a number with its noun, such as "3 rows" or, of the same plural, "1 row". */
export function counted(count: number, plural: string): string {
  return `${count} ${count === 1 ? plural.replace(/s$/, "") : plural}`;
}

function escaped(character: string): string {
  if (character === " ") {
    return character;
  }
  const code = character.codePointAt(0) ?? 0;
  const hexadecimal = code.toString(16);
  const general =
    code < 0x100
      ? `\\x${hexadecimal.padStart(2, "0")}`
      : code < 0x10000
        ? `\\u${hexadecimal.padStart(4, "0")}`
        : `\\U${hexadecimal.padStart(8, "0")}`;
  return ESCAPES[character] ?? general;
}
