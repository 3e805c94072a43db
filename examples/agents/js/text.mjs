// Text of others, for a terminal; and JSON that is typed.

import { Failure } from './errors.mjs';

// Letters and marks that show nothing, or choose how what stands before them is shown.
const BLANK =
  '\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u3164\\ufe00-\\ufe0f\\uffa0\\u{e0000}-\\u{e0fff}';
const NOT_SHOWN = new RegExp(`[^\\n\\t \\p{L}\\p{M}\\p{N}\\p{P}\\p{S}]|[\\\\${BLANK}]`, 'gu');

/**
 * `text` for a terminal, which must not take commands from it, nor show it as another text.
 *
 * Lines and tabs stay. What is not plainly visible is written `\u{..}`: control and format characters,
 * line and paragraph separators, spaces but the plain one, surrogates, private and unassigned
 * characters. A backslash is doubled.
 */
export function printable(text) {
  return text.replace(NOT_SHOWN, (found) =>
    found === '\\' ? '\\\\' : `\\u{${found.codePointAt(0).toString(16)}}`,
  );
}

/** JSON where it is JSON, else the text itself. A number that would be sent otherwise is refused. */
export function typed(text) {
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  return JSON.parse(text, (_, each, { source }) => {
    if (typeof each !== 'number') return each;
    const exact = JSON.stringify(each) === source;
    if (exact && (!Number.isInteger(each) || Number.isSafeInteger(each))) return each;
    throw new Failure(`${source} is a number that JavaScript does not keep as it is typed`);
  });
}
