/** Layouts: which coefficients of an item's polynomials hold features and scores. */

/** The coefficients that hold rows, features and scores. */
export interface Packing {
  /** Rows in a full item. */
  readonly rows: number;
  /** Ciphertexts of an item, whatever its number of rows. */
  readonly ciphertexts: number;
  /** Polynomial pairs of a reply. */
  readonly polynomials: number;
  /**
   * Call `put` for each feature of a ciphertext.
   *
   * @param rowCount 1..rows.
   * @param put takes the coefficient, the row and the feature.
   */
  place(ciphertext: number, rowCount: number, put: (coefficient: number, row: number, feature: number) => void): void;
  /** Return the first class of a polynomial pair, and how many there are. */
  classesIn(pair: number): { readonly first: number; readonly count: number };
  /** Return the coefficients of a pair that hold scores, ordered by row, then by class. */
  places(rowCount: number, classCount: number): Int32Array;
}

/**
 * Row: a dot product is one coefficient of a product of polynomials. Row r begins at r C f and
 * class j at j f, with f features and C classes that share a polynomial. A row of more than N
 * features is cut into blocks of N, one ciphertext each.
 *
 * @returns undefined if so many classes do not fit.
 */
export function rowPacking(
  polyModulusDegree: number,
  featureCount: number,
  scoreCount: number,
  classes: number,
): Packing | undefined {
  const window = Math.min(featureCount, polyModulusDegree);
  const stride = classes * window;
  if (classes < 1 || stride > polyModulusDegree) {
    return undefined;
  }
  return {
    rows: Math.floor(polyModulusDegree / stride),
    ciphertexts: Math.ceil(featureCount / polyModulusDegree),
    polynomials: Math.ceil(scoreCount / classes),
    place(ciphertext, rowCount, put) {
      const first = ciphertext * polyModulusDegree;
      const count = Math.min(window, featureCount - first);
      for (let row = 0; row < rowCount; row++) {
        for (let index = 0; index < count; index++) {
          put(row * stride + index, row, first + index);
        }
      }
    },
    classesIn(pair) {
      const first = pair * classes;
      return { first, count: Math.min(classes, scoreCount - first) };
    },
    places(rowCount, classCount) {
      return Int32Array.from({ length: rowCount * classCount }, (_, index) => {
        const row = Math.floor(index / classCount);
        return row * stride + (index % classCount) * window + window - 1;
      });
    },
  };
}

/**
 * Column: ciphertext j holds feature j of up to N rows, row r in coefficient r. Pair k holds class
 * k.
 *
 * @returns undefined if classes were to share a polynomial.
 */
export function columnPacking(
  polyModulusDegree: number,
  featureCount: number,
  scoreCount: number,
  classes: number,
): Packing | undefined {
  if (classes !== 1) {
    return undefined;
  }
  return {
    rows: polyModulusDegree,
    ciphertexts: featureCount,
    polynomials: scoreCount,
    place(ciphertext, rowCount, put) {
      for (let row = 0; row < rowCount; row++) {
        put(row, row, ciphertext);
      }
    },
    classesIn(pair) {
      return { first: pair, count: 1 };
    },
    places(rowCount) {
      return Int32Array.from({ length: rowCount }, (_, row) => row);
    },
  };
}
