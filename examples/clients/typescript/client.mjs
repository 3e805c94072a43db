// An MCP client on the TypeScript SDK, with the SDK's own DPoP, or through the sidecar.
//
//   node client.mjs --url URL --token FILE --key FILE [--era legacy|modern|auto] [TOOL [NAME=VALUE]...]...
//   node client.mjs --url URL --header 'Authorization: Bearer ...' ...
//   node client.mjs ... -- PROGRAM [ARGUMENT]...          an MCP server over stdio, such as `taper bridge`
//
// Lists the tools and calls those that are named. Prints one line of JSON, and exits with 1 when something was
// refused; an error is {"message", "code", "data"}:
//   {"era", "version", "tools": [...], "calls": [{"tool", "result" or "error"}, ...]}, or {"error"}

import { readFileSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import {
  Client,
  DpopSession,
  StreamableHTTPClientTransport,
  withDpop,
} from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { calculateJwkThumbprint, importJWK } from 'jose';

const ERAS = { legacy: 'legacy', modern: { pin: '2026-07-28' }, auto: 'auto' };

const argv = process.argv.slice(2);
const split = argv.indexOf('--') < 0 ? argv.length : argv.indexOf('--');
const program = argv.slice(split + 1);
const { values: options, positionals } = parseArgs({
  args: argv.slice(0, split),
  allowPositionals: true,
  options: {
    url: { type: 'string' },
    token: { type: 'string' },
    key: { type: 'string' },
    header: { type: 'string', multiple: true, default: [] },
    era: { type: 'string', default: 'auto' },
  },
});
const mode = ERAS[options.era];
if (mode === undefined) throw new Error(`no era ${options.era}: legacy, modern or auto`);

/** What the SDK signs proofs with: the key pair of a private JWK, Ed25519 or P-256. */
async function keyPair(file) {
  const { kty, crv, x, y, d } = JSON.parse(readFileSync(file, 'utf8'));
  const alg = { Ed25519: 'EdDSA', 'P-256': 'ES256' }[crv];
  if (alg === undefined || d === undefined) throw new Error(`${file} holds no private key that signs`);
  const publicJwk = y === undefined ? { kty, crv, x } : { kty, crv, x, y };
  return {
    privateKey: await importJWK({ ...publicJwk, d }, alg),
    publicKey: await importJWK(publicJwk, alg),
    publicJwk,
    thumbprint: await calculateJwkThumbprint(publicJwk),
    alg,
  };
}

async function transport() {
  if (program.length > 0) {
    return new StdioClientTransport({ command: program[0], args: program.slice(1), stderr: 'inherit' });
  }
  const url = new URL(options.url);
  if (options.token === undefined) {
    const headers = new Headers(options.header.map((line) => line.split(/:\s*(.*)/s, 2)));
    return new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  }
  // The capability takes the place of an access token: every request carries it and a fresh proof.
  const token = readFileSync(options.token, 'utf8').trim();
  const session = await DpopSession.create({ keyPair: await keyPair(options.key) });
  return new StreamableHTTPClientTransport(url, { fetch: withDpop(session, () => token)(fetch) });
}

/** A value is JSON where it is some, else a text. */
function value(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The calls of the command line: a word without `=` is a tool, what follows are its arguments. */
function calls() {
  const found = [];
  for (const word of positionals) {
    const [name, text] = word.split(/=(.*)/s, 2);
    if (text === undefined) found.push({ tool: name, args: {} });
    else found.at(-1).args[name] = value(text);
  }
  return found;
}

const client = new Client(
  { name: 'taper-example-typescript', version: '1' },
  { versionNegotiation: { mode } },
);
const connection = await transport();
const said = { era: null, version: null };
const refused = ({ message, code, data }) => {
  process.exitCode = 1;
  return { message, code, data };
};
try {
  await client.connect(connection);
  said.era = client.getProtocolEra();
  said.version = client.getNegotiatedProtocolVersion();
  said.tools = (await client.listTools()).tools.map(({ name }) => name);
  said.calls = [];
  for (const { tool, args } of calls()) {
    const result = client.callTool({ name: tool, arguments: args });
    said.calls.push(
      await result.then((result) => ({ tool, result }), (error) => ({ tool, error: refused(error) })),
    );
  }
} catch (error) {
  said.error = refused(error);
}
if (said.era === 'legacy') await connection.terminateSession?.().catch(() => {});
await client.close().catch(() => {});
writeSync(1, `${JSON.stringify(said)}\n`);
