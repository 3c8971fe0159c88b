// Tokens as a backend makes them: JSON Web Tokens signed with HS256.
import { createHmac } from 'node:crypto';

export const SECRET = 'a secret for tests';

const base64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

export function sign(claims, secret = SECRET) {
  const body = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

/** Unix seconds, `more` from now. */
export const seconds = (more = 0) => Math.floor(Date.now() / 1000) + more;

export const connectionToken = (user, more = {}) => sign({ sub: user, exp: seconds(3600), ...more });

export const subscriptionToken = (user, channel, more = {}) => sign({ sub: user, channel, exp: seconds(3600), ...more });
