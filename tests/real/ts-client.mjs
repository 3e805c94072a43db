// A real MCP client (the TypeScript SDK) that presents a given capability with the SDK's own DPoP, or with
// proofs that cover the body too.
//
//   node ts-client.mjs FILE        FILE is JSON, `-` is standard input:
//   {
//     "url": "http://127.0.0.1:1234/git/mcp",
//     "token": "...",                           presented as `Authorization: DPoP ...`
//     "jwk": {"kty": "OKP", "crv": "Ed25519", "d": ..., "x": ...},    or EC P-256, private
//     "bound": true,                            proofs with the digest of the body; default false
//     "era": "legacy" | "modern" | "auto",      default "auto"
//     "list": true,                             call tools/list; default true
//     "tool": "git_log", "arguments": {...},    call this tool; without it, none
//     "calls": [{"tool", "arguments"}, ...],    call these, one after another, whatever becomes of each
//     "answers": {"roots/list": {...}, ...}     what the server is answered when it asks the client
//   }
//
// Prints one line of JSON and exits with 0, or with 1 when something but `calls` was refused:
//   {
//     "era": "modern", "version": "2026-07-28",
//     "tools": ["git_log", ...], "list": {...}, "result": {...},
//     "calls": [{"result" or "error", "progress": [{"progress", "total"}, ...], "answer": the last of "requests"}],
//     "asked": [{"method", "params"}, ...],     what the server asked the client
//     "error": {"step": "connect" | "list" | "call", "name", "message", "code", "data"},
//     "requests": [{"method", "rpc", "status", "challenge", "error", "nonce"}]
//   }
// `requests` has every HTTP request that went out, retries included: `rpc` is the JSON-RPC method,
// `challenge` the WWW-Authenticate header, `error` the body of an answer that is not 2xx, `nonce`
// whether the answer brought a DPoP-Nonce.

import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import {
  Client,
  DpopSession,
  StreamableHTTPClientTransport,
  withDpop,
} from '@modelcontextprotocol/client';
import { calculateJwkThumbprint, importJWK, SignJWT } from 'jose';

const MODERN = '2026-07-28';
const TIMEOUT = { timeout: 15_000 }; // milliseconds

const file = process.argv[2] ?? '-';
const input = JSON.parse(fs.readFileSync(file === '-' ? 0 : file, 'utf8'));
const modes = { legacy: 'legacy', modern: { pin: MODERN }, auto: 'auto' };
const mode = modes[input.era ?? 'auto'];
if (mode === undefined) throw new Error(`unknown era ${input.era}`);

const output = { era: null, version: null, requests: [] };

async function keyPair(jwk) {
  const alg = { Ed25519: 'EdDSA', 'P-256': 'ES256' }[jwk.crv];
  if (alg === undefined) throw new Error(`unsupported curve ${jwk.crv}`);
  const { kty, crv, x, y } = jwk;
  const publicJwk = y === undefined ? { kty, crv, x } : { kty, crv, x, y };
  return {
    privateKey: await importJWK({ ...publicJwk, d: jwk.d }, alg),
    publicKey: await importJWK(publicJwk, alg),
    publicJwk,
    thumbprint: await calculateJwkThumbprint(publicJwk),
    alg,
  };
}

// Sits below the DPoP wrapper, so it sees what is really sent.
async function recordingFetch(url, init) {
  const response = await fetch(url, init);
  const entry = { method: init?.method ?? 'GET', status: response.status };
  if (typeof init?.body === 'string') entry.rpc = JSON.parse(init.body).method;
  const challenge = response.headers.get('www-authenticate');
  if (challenge !== null) entry.challenge = challenge;
  if (response.headers.has('dpop-nonce')) entry.nonce = true;
  if (!response.ok) entry.error = await response.clone().text();
  output.requests.push(entry);
  return response;
}

// What the SDK's own proofs lack: the digest of the body.
function withBoundDpop({ privateKey, publicJwk, alg }) {
  const sha256 = (text) => createHash('sha256').update(text);
  return async (url, init = {}) => {
    const claims = {
      jti: randomUUID(),
      htm: init.method ?? 'GET',
      htu: String(url),
      ath: sha256(input.token).digest('base64url'),
    };
    if (init.body !== undefined) {
      claims.content_digest = `sha-256=:${sha256(init.body).digest('base64')}:`;
    }
    const proof = new SignJWT(claims).setProtectedHeader({ typ: 'dpop+jwt', alg, jwk: publicJwk });
    const headers = new Headers(init.headers);
    headers.set('authorization', `DPoP ${input.token}`);
    headers.set('dpop', await proof.setIssuedAt().sign(privateKey));
    return recordingFetch(url, { ...init, headers });
  };
}

const pair = await keyPair(input.jwk);
const transport = new StreamableHTTPClientTransport(new URL(input.url), {
  fetch: input.bound
    ? withBoundDpop(pair)
    : withDpop(await DpopSession.create({ keyPair: pair }), () => input.token)(recordingFetch),
});
const answers = Object.entries(input.answers ?? {});
const client = new Client(
  { name: 'taper-tests', version: '0.0.0' },
  {
    versionNegotiation: { mode },
    capabilities: Object.fromEntries(answers.map(([method]) => [method.split('/')[0], {}])),
  },
);
for (const [method, answer] of answers) {
  client.setRequestHandler(method, async ({ params }) => {
    (output.asked ??= []).push({ method, params });
    return answer;
  });
}

const failure = ({ name, message, code, data }) => ({ name, message, code, data });

async function call({ tool, arguments: args }, options) {
  return client.callTool({ name: tool, arguments: args ?? {} }, { ...TIMEOUT, ...options });
}

let step = 'connect';
try {
  await client.connect(transport, TIMEOUT);
  output.era = client.getProtocolEra() ?? null;
  output.version = client.getNegotiatedProtocolVersion() ?? null;
  if (input.list ?? true) {
    step = 'list';
    output.list = await client.listTools({}, TIMEOUT);
    output.tools = output.list.tools.map((tool) => tool.name);
  }
  step = 'call';
  if (input.tool !== undefined) output.result = await call(input);
  for (const wanted of input.calls ?? []) {
    const done = { progress: [] };
    const onprogress = ({ progress, total }) => done.progress.push({ progress, total });
    try {
      done.result = await call(wanted, { onprogress });
    } catch (error) {
      done.error = failure(error);
    }
    done.answer = output.requests.filter(({ rpc }) => rpc === 'tools/call').at(-1);
    (output.calls ??= []).push(done);
  }
} catch (error) {
  output.error = { step, ...failure(error) };
  process.exitCode = 1;
}
if (output.era === 'legacy') await transport.terminateSession().catch(() => {});
await client.close().catch(() => {});
fs.writeSync(1, `${JSON.stringify(output)}\n`);
