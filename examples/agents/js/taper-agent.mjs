// The command line: `node taper-agent.mjs help`.
//
// Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 it cannot
// be done, 2 the issuer or the proxy refused, 64 usage.

import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { reason } from './biscuit.mjs';
import { Roots, delegate, narrow, sealed } from './capability.mjs';
import * as caveats from './caveats.mjs';
import { Failure, Refused } from './errors.mjs';
import { replace } from './files.mjs';
import { exchange, rootKeys } from './issuer.mjs';
import { Key, parseJwk } from './keys.mjs';
import { callTool } from './mcp.mjs';
import { prove } from './proof.mjs';
import { printable, typed } from './text.mjs';

const USAGE = `usage:
  keygen   --out FILE
  roots    --issuer URL --out FILE
  obtain   --issuer URL --client-id ID --subject-token FILE --key FILE
           (--scope SERVER:TOOL)... [--authorization-details JSON] [--out FILE]
  narrow   CAPABILITY --key FILE --roots FILE (--for 1h30m | --until TIME) [RESTRICTION]... [--out FILE]
  delegate CAPABILITY --key FILE --roots FILE (--for 1h30m | --until TIME) --to JWK [RESTRICTION]... [--out FILE]
  prove    --key FILE --url URL [--method POST] [--token FILE] [--body FILE] [--nonce NONCE]
  call     --url URL --token FILE --key FILE --roots FILE TOOL [NAME=VALUE]...
restrictions, which may repeat:
  --tool SERVER:TOOL  --server SERVER  --resource KIND=VALUE  --resource KIND=PREFIX/*
  --arg NAME=VALUE  --arg-range NAME=MIN..MAX
and once: --not-before TIME  --max-depth N  --note TEXT
`;

class Usage extends Error {}

const one = { type: 'string' };
const many = { type: 'string', multiple: true, default: [] };
const restrictions = {
  key: one,
  roots: one,
  out: one,
  until: one,
  for: one,
  tool: many,
  server: many,
  resource: many,
  arg: many,
  'arg-range': many,
  'not-before': one,
  'max-depth': one,
  note: one,
};

// Of each command: its options, which of them it needs, how many words it takes, and what it does.
const COMMANDS = {
  keygen: [{ out: one }, ['out'], [0, 0], runKeygen],
  roots: [{ issuer: one, out: one }, ['issuer', 'out'], [0, 0], runRoots],
  obtain: [
    {
      issuer: one,
      'client-id': one,
      'subject-token': one,
      key: one,
      scope: many,
      'authorization-details': one,
      out: one,
    },
    ['issuer', 'client-id', 'subject-token', 'key'],
    [0, 0],
    runObtain,
  ],
  narrow: [restrictions, ['key', 'roots'], [1, 1], runNarrow],
  delegate: [{ ...restrictions, to: one }, ['key', 'roots', 'to'], [1, 1], runDelegate],
  prove: [
    { key: one, url: one, method: { ...one, default: 'POST' }, token: one, body: one, nonce: one },
    ['key', 'url'],
    [0, 0],
    runProve,
  ],
  call: [
    { url: one, token: one, key: one, roots: one },
    ['url', 'token', 'key', 'roots'],
    [1, Infinity],
    runCall,
  ],
};

async function runKeygen({ out }) {
  const key = await Key.generate();
  await key.save(out);
  console.log(JSON.stringify(key.publicJwk()));
}

async function runRoots({ issuer, out }) {
  const jwks = await rootKeys(issuer);
  new Roots(jwks);
  await replace(out, jwks);
}

async function runObtain(options) {
  const token = await exchange(
    options.issuer,
    options['client-id'],
    await read(options['subject-token']),
    await Key.load(options.key),
    { scopes: options.scope, authorizationDetails: options['authorization-details'] },
  );
  await deliver(token, options.out);
}

async function runNarrow(options, [capability]) {
  const { roots, key, terms } = await holding(options);
  await deliver(await narrow(roots, await read(capability), key, terms), options.out);
}

async function runDelegate(options, [capability]) {
  const { roots, key, terms } = await holding(options);
  const to = parseJwk(options.to.trimStart().startsWith('{') ? options.to : await read(options.to));
  await deliver(await delegate(roots, await read(capability), key, to, terms), options.out);
}

async function runProve({ key, method, url, token, body, nonce }) {
  const bound = {
    token: token === undefined ? undefined : await read(token),
    body: body === undefined ? undefined : await readFile(body),
    nonce,
  };
  console.log(await prove(await Key.load(key), method, url, bound));
}

async function runCall(options, [tool, ...words]) {
  const roots = new Roots(await read(options.roots));
  const token = sealed(roots, await read(options.token));
  const given = grouped(words);
  if (given.size < words.length) throw new Usage('an argument is there twice');
  const args = Object.fromEntries([...given].map(([name, [text]]) => [name, typed(text)]));
  const result = await callTool(options.url, token, await Key.load(options.key), tool, args);
  for (const part of result.content ?? []) console.log(printable(part.text ?? JSON.stringify(part)));
  if (result.isError) process.exitCode = 1;
}

async function holding(options) {
  return {
    roots: new Roots(await read(options.roots)),
    key: await Key.load(options.key),
    terms: {
      until: end(options),
      caveats: restrict(options),
      note: options.note,
      maxDepth: options['max-depth'] === undefined ? undefined : integer(options['max-depth']),
    },
  };
}

/** One caveat for each kind of restriction; several values of one kind are alternatives. */
function restrict(options) {
  const made = [];
  const tools = grouped(options.tool, ':');
  if (tools.size > 1) throw new Failure('tools of two servers in one block would allow none of them');
  for (const [server, names] of tools) made.push(caveats.tool(server, names));
  if (options.server.length > 0) made.push(caveats.server(options.server));
  for (const [kind, values] of grouped(options.resource)) {
    if (values.length === 1 && values[0].endsWith('*')) {
      made.push(caveats.resourceBelow(kind, values[0].slice(0, -1)));
    } else if (values.some((each) => each.endsWith('*'))) {
      throw new Failure('a value that ends with `*` stands alone');
    } else {
      made.push(caveats.resourceOneOf(kind, values));
    }
  }
  for (const [name, texts] of grouped(options.arg)) {
    const values = texts.map(typed);
    if (values.length === 1) made.push(caveats.argumentEquals(pointer(name), values[0]));
    else made.push(caveats.argumentOneOf(pointer(name), values));
  }
  for (const [name, text] of pairs(options['arg-range'])) {
    const bounds = /^(-?\d+)?\.\.(-?\d+)?$/.exec(text);
    if (bounds === null) throw new Failure(`\`${text}\` is no range: 1..10, 1.. or ..10`);
    const [least, most] = bounds.slice(1).map((bound) => (bound === undefined ? bound : Number(bound)));
    made.push(caveats.argumentRange(pointer(name), { least, most }));
  }
  if (options['not-before'] !== undefined) made.push(caveats.notBefore(time(options['not-before'])));
  return made;
}

function end(options) {
  if ((options.until === undefined) === (options.for === undefined)) {
    throw new Usage('one of --for and --until is needed');
  }
  const until =
    options.until === undefined ? new Date(Date.now() + duration(options.for)) : time(options.until);
  if (!(until > new Date())) throw new Failure('the end is not in the future');
  return until;
}

function time(text) {
  const form = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:Z|([+-])(\d\d):(\d\d))$/.exec(text);
  const at = Date.parse(text);
  if (form !== null && !Number.isNaN(at)) {
    const [, local, sign, hours = 0, minutes = 0] = form;
    const ahead = (Number(hours) * 60 + Number(minutes)) * (sign === '-' ? -60_000 : 60_000);
    // `Date` takes February 30 for March 2, and the hour 24 for the next day.
    if (new Date(at + ahead).toISOString().startsWith(local)) return new Date(at);
  }
  throw new Usage(`\`${text}\` is no time such as 2030-01-31T09:30:00Z`);
}

/** Milliseconds. */
function duration(text) {
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text);
  if (text === '' || parts === null) throw new Usage(`\`${text}\` is no duration such as 1h30m`);
  const [hours, minutes, seconds] = parts.slice(1).map((part) => Number(part ?? 0));
  return ((hours * 60 + minutes) * 60 + seconds) * 1000;
}

function integer(text) {
  if (!/^\d+$/.test(text)) throw new Usage(`\`${text}\` is no number`);
  return Number(text);
}

function grouped(words, separator = '=') {
  const groups = new Map();
  for (const [name, text] of pairs(words, separator)) groups.set(name, [...(groups.get(name) ?? []), text]);
  return groups;
}

function* pairs(words, separator = '=') {
  for (const word of words) {
    const at = word.indexOf(separator);
    if (at < 1) throw new Usage(`\`${word}\` is not NAME${separator}VALUE`);
    yield [word.slice(0, at), word.slice(at + 1)];
  }
}

/** A plain name is a member of the arguments (RFC 6901 section 3 escapes its `~` and `/`). */
function pointer(name) {
  return name.startsWith('/') ? name : `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

async function read(path) {
  return (await readFile(path, 'utf8')).trim();
}

async function deliver(token, out) {
  if (out === undefined) console.log(token);
  else await replace(out, `${token}\n`);
}

async function main([name, ...words]) {
  if (name === 'help') {
    console.log(USAGE);
    return;
  }
  const command = Object.hasOwn(COMMANDS, name ?? '') ? COMMANDS[name] : undefined;
  if (command === undefined) throw new Usage('there is no such command');
  const [options, needed, [least, most], run] = command;
  let parsed;
  try {
    parsed = parseArgs({ args: words, options, allowPositionals: true });
  } catch (error) {
    throw new Usage(error.message);
  }
  for (const option of needed) {
    if (parsed.values[option] === undefined) throw new Usage(`--${option} is needed`);
  }
  const count = parsed.positionals.length;
  if (count < least || count > most) throw new Usage('too few words, or too many');
  await run(parsed.values, parsed.positionals);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof Usage) {
    console.error(`${error.message}\n${USAGE}`);
    process.exitCode = 64;
  } else if (error instanceof Refused) {
    console.error(`refused: ${printable(error.message)}`);
    process.exitCode = 2;
  } else {
    console.error(`failed: ${printable(reason(error))}`);
    process.exitCode = 1;
  }
}
