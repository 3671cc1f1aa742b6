import {
  constants,
  createHmac,
  generateKeyPair,
  randomBytes,
  sign as nodeSign,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';
import { promisify } from 'node:util';

const generate = promisify(generateKeyPair);
const signAsync = promisify(nodeSign) as unknown as (
  algorithm: string | null,
  data: Buffer,
  key: object,
) => Promise<Buffer>;

// Tokens are put together by hand here, not with a JOSE library: most of what this file makes must not exist.

export type KeyAlg = 'RS256' | 'PS256' | 'ES256' | 'EdDSA' | 'RS512';

export type Json = Record<string, unknown>;

/** Ways of making an ID token that must not be accepted (except `no-kid` with one published key). */
export type SigningTrick =
  | 'none'
  | 'None'
  | 'nOnE'
  | 'wrong-key'
  | 'hs256-public-key'
  | 'hs256-client-secret'
  | 'es256-unpublished'
  | 'es256-zero'
  | 'rs512'
  | 'no-kid'
  | 'unknown-kid'
  | 'empty-signature'
  | 'jwk'
  | 'jku'
  | 'x5u'
  | 'x5c'
  | 'crit'
  | 'b64-false'
  | { flipBit: number };

export interface SigningKey {
  kid: string;
  alg: KeyAlg;
  publicKey: KeyObject;
  privateKey: KeyObject;
  /** Whether the JWKS endpoint shows it. */
  published: boolean;
}

const encode = (value: string | Buffer): string => Buffer.from(value).toString('base64url');

export async function newKey(alg: KeyAlg, kid = randomBytes(8).toString('hex')): Promise<SigningKey> {
  const pair =
    alg === 'ES256'
      ? await generate('ec', { namedCurve: 'P-256' })
      : alg === 'EdDSA'
        ? await generate('ed25519')
        : await generate('rsa', { modulusLength: 2048 });
  return { kid, alg, publicKey: pair.publicKey, privateKey: pair.privateKey, published: true };
}

export function publicJwk(key: SigningKey): JsonWebKey & Json {
  return { ...key.publicKey.export({ format: 'jwk' }), kid: key.kid, alg: key.alg, use: 'sig' };
}

async function rawSignature(alg: KeyAlg, key: KeyObject, input: string): Promise<Buffer> {
  const data = Buffer.from(input);
  switch (alg) {
    case 'ES256':
      return await signAsync('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
    case 'EdDSA':
      return await signAsync(null, data, { key });
    case 'PS256':
      return await signAsync('sha256', data, {
        key,
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
      });
    case 'RS512':
      return await signAsync('sha512', data, { key });
    case 'RS256':
      return await signAsync('sha256', data, { key });
  }
}

export interface SignRequest {
  key: SigningKey;
  payload: Json | string;
  header?: Json;
  /** Applied last, before signing. */
  mutateHeader?: ((header: Json) => Json) | undefined;
  trick?: SigningTrick | undefined;
  clientSecret?: string;
  /** Where `jku` and `x5u` point. */
  foreignUrl?: string;
}

let foreign: Promise<{ rsa: SigningKey; ec: SigningKey }> | undefined;

function foreignKeys(): Promise<{ rsa: SigningKey; ec: SigningKey }> {
  foreign ??= (async () => ({ rsa: await newKey('RS256'), ec: await newKey('ES256') }))();
  return foreign;
}

export async function signJwt(request: SignRequest): Promise<string> {
  const { key, trick } = request;
  let header: Json = { alg: key.alg, typ: 'JWT', kid: key.kid, ...request.header };
  let alg = key.alg;
  let privateKey = key.privateKey;
  const foreignUrl = request.foreignUrl ?? 'http://127.0.0.1:9/keys';

  const asForeign = async (kind: 'rsa' | 'ec'): Promise<SigningKey> => {
    const other = (await foreignKeys())[kind];
    alg = other.alg;
    privateKey = other.privateKey;
    header['alg'] = other.alg;
    return other;
  };

  switch (trick) {
    case 'none':
    case 'None':
    case 'nOnE':
      header['alg'] = trick;
      break;
    case 'wrong-key':
      await asForeign(key.alg === 'ES256' ? 'ec' : 'rsa');
      break;
    case 'hs256-public-key':
    case 'hs256-client-secret':
      header['alg'] = 'HS256';
      break;
    case 'es256-unpublished':
      await asForeign('ec');
      break;
    case 'es256-zero':
      header['alg'] = 'ES256';
      break;
    case 'rs512':
      alg = 'RS512';
      header['alg'] = 'RS512';
      break;
    case 'no-kid':
      delete header['kid'];
      break;
    case 'unknown-kid':
      header['kid'] = `unknown-${randomBytes(4).toString('hex')}`;
      break;
    case 'jwk':
    case 'jku':
    case 'x5u':
    case 'x5c': {
      const other = await asForeign('rsa');
      const jwk = publicJwk(other);
      header['kid'] = other.kid;
      if (trick === 'jwk') header['jwk'] = jwk;
      else if (trick === 'x5c') {
        header['x5c'] = [other.publicKey.export({ type: 'spki', format: 'der' }).toString('base64')];
      } else header[trick] = foreignUrl;
      break;
    }
    case 'crit':
      header['crit'] = ['urn:example:unknown'];
      header['urn:example:unknown'] = true;
      break;
    case 'b64-false':
      header['b64'] = false;
      header['crit'] = ['b64'];
      break;
    case undefined:
    case 'empty-signature':
    default:
      break;
  }
  if (request.mutateHeader !== undefined) header = request.mutateHeader(header);

  const payload = typeof request.payload === 'string' ? request.payload : JSON.stringify(request.payload);
  const input = `${encode(JSON.stringify(header))}.${encode(payload)}`;

  if (trick === 'none' || trick === 'None' || trick === 'nOnE' || trick === 'empty-signature')
    return `${input}.`;
  if (trick === 'hs256-public-key') {
    const secret = key.publicKey.export({ type: 'spki', format: 'pem' });
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
  }
  if (trick === 'hs256-client-secret') {
    return `${input}.${createHmac('sha256', request.clientSecret ?? '')
      .update(input)
      .digest('base64url')}`;
  }
  if (trick === 'es256-zero') return `${input}.${encode(Buffer.alloc(64))}`;

  const signature = await rawSignature(alg, privateKey, input);
  if (typeof trick === 'object') {
    const at = trick.flipBit % (signature.length * 8);
    const byte = signature[at >> 3] ?? 0;
    signature[at >> 3] = byte ^ (1 << (at & 7));
  }
  return `${input}.${signature.toString('base64url')}`;
}
