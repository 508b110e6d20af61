/**
 * Key-encryption keys that never leave a PKCS#11 token (an HSM, a cloud KMS with such a library, SoftHSM): the token wraps
 * data keys by CKM_AES_GCM (PKCS#11 v2.40, section 2.12.4). The binding `pkcs11js` is native code, and an optional package.
 * @module
 */
import { randomBytes } from 'node:crypto';
import { ServiceError } from '../errors.ts';
import { createEnvelopeVault, type KeyEncryptionKey } from './envelope.ts';
import type { KeyVault } from './port.ts';

export interface Pkcs11Config {
  /** The token's library, such as /usr/lib/softhsm/libsofthsm2.so. */
  readonly libraryPath: string;
  readonly tokenLabel: string;
  readonly pin: string;
  /** CKA_LABEL of the AES keys, the newest first. */
  readonly keyLabels: readonly string[];
}

type Handle = Buffer;
interface Attribute {
  readonly type: number;
  readonly value?: unknown;
}
interface Mechanism {
  readonly mechanism: number;
  readonly parameter: unknown;
}

/** What is used of `pkcs11js`. */
export interface Pkcs11Binding extends Readonly<Record<Constant, number>> {
  readonly PKCS11: new () => Pkcs11Library;
}

type Constant =
  | 'CKA_CLASS'
  | 'CKA_EXTRACTABLE'
  | 'CKA_KEY_TYPE'
  | 'CKA_LABEL'
  | 'CKA_SENSITIVE'
  | 'CKF_OS_LOCKING_OK'
  | 'CKF_SERIAL_SESSION'
  | 'CKK_AES'
  | 'CKM_AES_GCM'
  | 'CKO_SECRET_KEY'
  | 'CKR_CRYPTOKI_ALREADY_INITIALIZED'
  | 'CKR_USER_ALREADY_LOGGED_IN'
  | 'CKU_USER'
  | 'CK_PARAMS_AES_GCM_v240';

interface Pkcs11Library {
  load(path: string): void;
  C_Initialize(options: { flags: number }): void;
  C_GetSlotList(isTokenPresent: boolean): Handle[];
  C_GetTokenInfo(slot: Handle): { readonly label: string };
  C_OpenSession(slot: Handle, flags: number): Handle;
  C_CloseSession(session: Handle): void;
  C_Login(session: Handle, userType: number, pin: string): void;
  C_FindObjectsInit(session: Handle, template: readonly Attribute[]): void;
  C_FindObjects(session: Handle, countMax: number): Handle[];
  C_FindObjectsFinal(session: Handle): void;
  C_GetAttributeValue(session: Handle, object: Handle, template: readonly Attribute[]): { readonly value: Buffer }[];
  C_EncryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_EncryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
  C_DecryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_DecryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
}

const nonceBytes = 12;
const tagBytes = 16;
/** CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_AEAD_DECRYPT_FAILED. */
const alteredCodes: readonly unknown[] = [0x40, 0x41, 0x42];

/** Rejects with `key_vault_unavailable` where the package is not installed. */
export async function importPkcs11(specifier = 'pkcs11js'): Promise<Pkcs11Binding> {
  try {
    const { default: binding } = await import(specifier);
    return binding;
  } catch (cause) {
    throw unusable(`the package ${specifier} cannot be loaded`, cause);
  }
}

/** Throws `key_vault_unavailable` where the token, or one of the keys, cannot be used, or may leave the token. */
export function createPkcs11KeyVault(binding: Pkcs11Binding, config: Pkcs11Config): KeyVault {
  const token = new Token(binding, config);
  const [newest, ...older] = config.keyLabels.map((label) => kekOf(token, label));
  if (newest === undefined) throw unusable('no key is named');
  token.open();
  return createEnvelopeVault([newest, ...older], () => token.close());
}

function kekOf(token: Token, label: string): KeyEncryptionKey {
  const id = `pkcs11:${label}`;
  const additional = Buffer.from(id);
  return {
    id,
    async wrap(dataKey) {
      const nonce = randomBytes(nonceBytes);
      return Buffer.concat([nonce, await token.encrypt(label, dataKey, nonce, additional)]);
    },
    unwrap: (wrapped) =>
      token.decrypt(label, wrapped.subarray(nonceBytes), Buffer.from(wrapped.subarray(0, nonceBytes)), additional),
  };
}

interface Session {
  readonly handle: Handle;
  readonly keys: ReadonlyMap<string, Handle>;
}

/** One session, since it takes one operation at a time; a new one after whatever failed. */
class Token {
  readonly #binding: Pkcs11Binding;
  readonly #config: Pkcs11Config;
  readonly #library: Pkcs11Library;
  #session: Session | null = null;
  #last: Promise<unknown> = Promise.resolve();

  constructor(binding: Pkcs11Binding, config: Pkcs11Config) {
    this.#binding = binding;
    this.#config = config;
    this.#library = new binding.PKCS11();
    try {
      this.#library.load(config.libraryPath);
      // A library is initialised once in a process, whoever does it.
      allowing(binding.CKR_CRYPTOKI_ALREADY_INITIALIZED, () =>
        this.#library.C_Initialize({ flags: binding.CKF_OS_LOCKING_OK }),
      );
    } catch (cause) {
      throw unusable('the library cannot be loaded', cause);
    }
  }

  open(): Session {
    if (this.#session !== null) return this.#session;
    const { CKF_SERIAL_SESSION, CKU_USER, CKR_USER_ALREADY_LOGGED_IN } = this.#binding;
    const library = this.#library;
    let handle: Handle | null = null;
    try {
      const opened = library.C_OpenSession(this.#slot(), CKF_SERIAL_SESSION);
      handle = opened;
      allowing(CKR_USER_ALREADY_LOGGED_IN, () => library.C_Login(opened, CKU_USER, this.#config.pin));
      const keys = new Map(this.#config.keyLabels.map((label) => [label, this.#key(opened, label)]));
      this.#session = { handle, keys };
      return this.#session;
    } catch (cause) {
      this.#end(handle);
      throw cause instanceof ServiceError ? cause : unusable('no session', cause);
    }
  }

  encrypt(label: string, plaintext: Uint8Array, nonce: Buffer, additional: Buffer): Promise<Buffer> {
    return this.#use(label, (session, key) => {
      this.#library.C_EncryptInit(session, this.#gcm(nonce, additional), key);
      return this.#library.C_EncryptAsync(session, Buffer.from(plaintext), Buffer.alloc(plaintext.length + tagBytes));
    });
  }

  decrypt(label: string, ciphertext: Uint8Array, nonce: Buffer, additional: Buffer): Promise<Buffer> {
    return this.#use(label, (session, key) => {
      this.#library.C_DecryptInit(session, this.#gcm(nonce, additional), key);
      return this.#library.C_DecryptAsync(session, Buffer.from(ciphertext), Buffer.alloc(ciphertext.length));
    });
  }

  async close(): Promise<void> {
    await this.#last.catch(() => {});
    this.#drop();
  }

  #use(label: string, operation: (session: Handle, key: Handle) => Promise<Buffer>): Promise<Buffer> {
    const result = this.#last.then(async () => {
      const { handle, keys } = this.open();
      const key = keys.get(label);
      if (key === undefined) throw unusable(`there is no key ${label}`);
      try {
        return await operation(handle, key);
      } catch (cause) {
        this.#drop();
        if (alteredCodes.includes(codeOf(cause))) {
          throw new ServiceError('sealed_data_invalid', { detail: 'a wrapped key was altered', cause });
        }
        throw unusable('the token refused', cause);
      }
    });
    this.#last = result.catch(() => {});
    return result;
  }

  #drop(): void {
    this.#end(this.#session?.handle ?? null);
    this.#session = null;
  }

  #end(session: Handle | null): void {
    try {
      if (session !== null) this.#library.C_CloseSession(session);
    } catch {
      // It ended with the token.
    }
  }

  #slot(): Handle {
    const { tokenLabel } = this.#config;
    const slots = this.#library.C_GetSlotList(true);
    const slot = slots.find((candidate) => this.#library.C_GetTokenInfo(candidate).label.trimEnd() === tokenLabel);
    if (slot === undefined) throw unusable(`there is no token ${tokenLabel}`);
    return slot;
  }

  #key(session: Handle, label: string): Handle {
    const { CKA_CLASS, CKO_SECRET_KEY, CKA_KEY_TYPE, CKK_AES, CKA_LABEL, CKA_SENSITIVE, CKA_EXTRACTABLE } =
      this.#binding;
    const library = this.#library;
    library.C_FindObjectsInit(session, [
      { type: CKA_CLASS, value: CKO_SECRET_KEY },
      { type: CKA_KEY_TYPE, value: CKK_AES },
      { type: CKA_LABEL, value: label },
    ]);
    const [key, ...more] = library.C_FindObjects(session, 2);
    library.C_FindObjectsFinal(session);
    if (key === undefined || more.length > 0) throw unusable(`there is not one AES key ${label}`);
    const [sensitive, extractable] = library.C_GetAttributeValue(session, key, [
      { type: CKA_SENSITIVE },
      { type: CKA_EXTRACTABLE },
    ]);
    if (sensitive?.value[0] !== 1 || extractable?.value[0] !== 0)
      throw unusable(`the key ${label} may leave the token`);
    return key;
  }

  #gcm(iv: Buffer, aad: Buffer): Mechanism {
    const { CKM_AES_GCM, CK_PARAMS_AES_GCM_v240 } = this.#binding;
    return {
      mechanism: CKM_AES_GCM,
      parameter: { type: CK_PARAMS_AES_GCM_v240, iv, aad, ivBits: nonceBytes * 8, tagBits: tagBytes * 8 },
    };
  }
}

function allowing(code: number, operation: () => void): void {
  try {
    operation();
  } catch (error) {
    if (codeOf(error) !== code) throw error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function unusable(detail: string, cause?: unknown): ServiceError {
  return new ServiceError('key_vault_unavailable', { detail: `PKCS#11: ${detail}`, cause });
}
