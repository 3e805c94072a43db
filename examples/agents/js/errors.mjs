// What can go wrong, as two kinds: it cannot be done, and somebody said no.

/** It cannot be done: a wrong file, an argument that makes no sense, an answer that is none. */
export class Failure extends Error {}

/** The issuer or the proxy said no. */
export class Refused extends Error {
  constructor(status, reason) {
    super(`status ${status}, ${reason}`);
    this.status = status;
    this.reason = reason;
  }
}
