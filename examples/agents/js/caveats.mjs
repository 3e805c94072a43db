// Caveats: restrictions that a holder adds, one Datalog check each, spelled as in spec/caveats.md.
//
// Values are parameters of the check (`{tools}` below). They are never formatted into its source, so
// no value can change what the check says.

import { check } from './biscuit.mjs';
import { Failure } from './errors.mjs';

/** Only these tools of one server. */
export function tool(server, tools) {
  name(/^[a-z0-9-]{1,64}$/, server);
  for (const each of tools) name(/^[A-Za-z0-9_./-]{1,128}$/, each);
  const source = 'check if server({server}), tool($tool), {tools}.contains($tool)';
  return check(source, { server, tools: set(tools) });
}

/** Only these servers. */
export function server(servers) {
  for (const each of servers) name(/^[a-z0-9-]{1,64}$/, each);
  return check('check if server($server), {servers}.contains($server)', { servers: set(servers) });
}

/** Every resource of this kind that the call names is one of these, and there is one. */
export function resourceOneOf(kind, values) {
  name(/^[a-z0-9_-]{1,64}$/, kind);
  const source = 'check all resource({kind}, $value), {values}.contains($value)';
  return check(source, { kind, values: set(values.map(text)) });
}

/** Every resource of this kind that the call names starts so, and there is one. */
export function resourceBelow(kind, prefix) {
  name(/^[a-z0-9_-]{1,64}$/, kind);
  if (!prefix.endsWith('/')) {
    throw new Failure('a resource prefix ends with `/`, so that it cannot match half a name');
  }
  const source = 'check all resource({kind}, $value), $value.starts_with({prefix})';
  return check(source, { kind, prefix: text(prefix) });
}

/** The argument at this RFC 6901 pointer is this value, of this type. */
export function argumentEquals(pointer, wanted) {
  const { get, members } = argument(pointer);
  return check(`check if args($args), ${get} === {value}`, { ...members, value: value(wanted) });
}

/** The argument is one of these values, which are of one type. */
export function argumentOneOf(pointer, wanted) {
  if (new Set(wanted.map((each) => typeof each)).size > 1) {
    throw new Failure('the values of a list are of one type');
  }
  const { get, members } = argument(pointer);
  const values = set(wanted.map(value));
  return check(`check if args($args), {values}.contains(${get})`, { ...members, values });
}

/** The argument is an integer from `least` to `most`, both included; one may be left out. */
export function argumentRange(pointer, { least, most }) {
  if ((least === undefined && most === undefined) || least > most) {
    throw new Failure('the range is empty');
  }
  const { get, members: parameters } = argument(pointer);
  let source = 'check if args($args)';
  if (least !== undefined) {
    source += `, ${get} >= {least}`;
    parameters.least = value(least);
  }
  if (most !== undefined) {
    source += `, ${get} <= {most}`;
    parameters.most = value(most);
  }
  return check(source, parameters);
}

/** Not before this `Date`. */
export function notBefore(at) {
  return check('check if time($time), $time >= {at}', { at });
}

/** `$args.get({m0}).get({m1})` for a pointer of two members, and the members by parameter. */
function argument(pointer) {
  const parts = pointer.split('/').slice(1);
  if (!pointer.startsWith('/') || parts.length > 8 || /~(?![01])/.test(pointer)) {
    throw new Failure('an argument is named by an RFC 6901 pointer of 1 to 8 members, such as `/repo_path`');
  }
  const members = {};
  for (const [i, part] of parts.entries()) {
    const member = part.replaceAll('~1', '/').replaceAll('~0', '~');
    const length = Buffer.byteLength(member);
    if (length < 1 || length > 128) throw new Failure('a member of a pointer has 1 to 128 bytes');
    members[`m${i}`] = member;
  }
  const get = `$args${Object.keys(members).map((each) => `.get({${each}})`).join('')}`;
  return { get, members };
}

function name(pattern, text) {
  if (!pattern.test(text)) throw new Failure(`${JSON.stringify(text)} is no name: ${pattern.source}`);
}

function set(values) {
  if (values.length < 1 || values.length > 64) throw new Failure('a list has 1 to 64 values');
  return new Set(values);
}

function text(value) {
  const length = Buffer.byteLength(value);
  if (length < 1 || length > 1024) throw new Failure('a string has 1 to 1,024 bytes');
  return value;
}

function value(given) {
  switch (typeof given) {
    case 'boolean':
      return given;
    case 'number':
      // -0 would be the integer 0, which no `-0` of a request equals.
      if (Number.isSafeInteger(given) && !Object.is(given, -0)) return given;
      break;
    case 'string':
      if (Buffer.byteLength(given) <= 1024) return given;
  }
  throw new Failure(
    'a value is a boolean, an integer within ±(2^53 - 1), or a string of at most 1,024 bytes',
  );
}
