// Writing what a command makes: whole or not at all, and never over a key.

import { randomBytes } from 'node:crypto';
import { lstat, open, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Failure } from './errors.mjs';

const MAX_JWK = 65_536; // bytes; no JWK is longer

/**
 * Writes a new file, mode 0600, and puts it in the place of the old one in one step.
 *
 * Only a regular file is replaced, and none that holds a private JWK. No link is followed.
 */
export async function replace(path, text) {
  const old = await lstat(path).catch((error) => {
    if (error.code !== 'ENOENT') throw error;
  });
  if (old !== undefined) {
    if (!old.isFile()) throw new Failure(`${path} is no regular file`);
    if (await isPrivateJwk(path)) {
      throw new Failure(`${path} holds a private key, which is never overwritten`);
    }
  }
  const made = join(dirname(path), `.${basename(path)}.${randomBytes(8).toString('hex')}`);
  const file = await open(made, 'wx', 0o600);
  try {
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(made, path);
  } catch (error) {
    await unlink(made);
    throw error;
  }
}

async function isPrivateJwk(path) {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_JWK));
    return JSON.parse(buffer.toString('utf8', 0, bytesRead))?.d !== undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  } finally {
    await file.close();
  }
}
