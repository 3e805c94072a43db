// The Biscuit library, and checks and facts with parameters.

import { Failure } from './errors.mjs';

// It greets on console.log while it loads, and standard output is for results.
const { log } = console;
console.log = () => {};
const library = await import('@biscuit-auth/biscuit-wasm');
console.log = log;

export const { Biscuit, BlockBuilder, KeyPair, PrivateKey, PublicKey, SignatureAlgorithm } = library;

/** A check; `{name}` in its source stands for a parameter, which is never formatted into the text. */
export function check(source, parameters) {
  return withParameters(library.Check.fromString(source), parameters);
}

/** A fact, likewise. */
export function fact(source, parameters) {
  return withParameters(library.Fact.fromString(source), parameters);
}

/** The library throws plain objects; a person wants words. */
export function reason(error) {
  return error instanceof Error ? error.message : JSON.stringify(error);
}

function withParameters(made, parameters) {
  for (const [name, value] of Object.entries(parameters)) made.set(name, library.prepareTerm(value));
  const unbound = made.unboundParameters();
  if (unbound.length > 0) throw new Failure(`no value for ${unbound}`);
  return made;
}
