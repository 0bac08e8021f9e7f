/**
 * The quantile function of the standard normal distribution.
 *
 * Source: Cephes Math Library, ndtri.c, by Stephen L. Moshier. SciPy uses it, too.
 */

const P0 = [-59.96335010141079, 98.00107541859997, -56.67628574690703, 13.931260938727968, -1.2391658386738125];
const Q0 = [
  1, 1.9544885833814176, 4.676279128988815, 86.36024213908905, -225.46268785411937, 200.26021238006066,
  -82.03722561683334, 15.90562251262117, -1.1833162112133,
];
const P1 = [
  4.0554489230596245, 31.525109459989388, 57.16281922464213, 44.08050738932008, 14.684956192885803, 2.1866330685079025,
  -0.1402560791713545, -0.03504246268278482, -0.0008574567851546854,
];
const Q1 = [
  1, 15.779988325646675, 45.39076351288792, 41.3172038254672, 15.04253856929075, 2.504649462083094,
  -0.14218292285478779, -0.03808064076915783, -0.0009332594808954574,
];
const P2 = [
  3.2377489177694603, 6.915228890689842, 3.9388102529247444, 1.3330346081580755, 0.20148538954917908,
  0.012371663481782003, 0.00030158155350823543, 2.6580697468673755e-6, 6.239745391849833e-9,
];
const Q2 = [
  1, 6.02427039364742, 3.6798356385616087, 1.3770209948908132, 0.21623699359449663, 0.013420400608854318,
  0.00032801446468212774, 2.8924786474538068e-6, 6.790194080099813e-9,
];
const ROOT_OF_2_PI = 2.5066282746310007;
const TAIL = 0.1353352832366127; // exp(-2)

/** Return the quantile of a probability; NaN unless it is 0..1. */
export function normalQuantile(p: number): number {
  if (p === 0 || p === 1) {
    return p === 0 ? -Infinity : Infinity;
  }
  if (!(p > 0 && p < 1)) {
    return Number.NaN;
  }
  const isUpper = p > 1 - TAIL;
  const tail = isUpper ? 1 - p : p;
  if (tail > TAIL) {
    const centered = tail - 0.5;
    const square = centered * centered;
    return (centered + centered * ((square * polynomial(P0, square)) / polynomial(Q0, square))) * ROOT_OF_2_PI;
  }
  const root = Math.sqrt(-2 * Math.log(tail));
  const inverse = 1 / root;
  const [P, Q] = root < 8 ? [P1, Q1] : [P2, Q2];
  const outer = root - Math.log(root) / root - (inverse * polynomial(P, inverse)) / polynomial(Q, inverse);
  return isUpper ? outer : -outer;
}

/** Evaluate a polynomial, its highest power first. */
function polynomial(coefficients: readonly number[], x: number): number {
  return coefficients.reduce((value, coefficient) => value * x + coefficient, 0);
}
