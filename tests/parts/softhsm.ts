/**
 * SoftHSM: a PKCS#11 token in software, from the system's packages (Debian: softhsm2). Not a process, and so no part.
 * @module
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { importPkcs11, type Pkcs11Binding } from '@token-gateway/platform';
import { installPkcs11 } from './native-install.ts';

const libraries = ['/usr/lib/softhsm/libsofthsm2.so', '/usr/lib64/pkcs11/libsofthsm2.so'];

export interface SoftHsm {
  readonly binding: TestBinding;
  readonly libraryPath: string;
}

/** Rejects, saying why, where it cannot be had. */
export async function openSoftHsm(): Promise<SoftHsm> {
  const libraryPath = libraries.find((path) => existsSync(path));
  if (libraryPath === undefined) throw new Error('no libsofthsm2.so (apt-get install softhsm2)');
  return { binding: (await importPkcs11(await installPkcs11())) as TestBinding, libraryPath };
}

export interface SoftHsmToken {
  readonly label: string;
  readonly pin: string;
  /** Makes an AES key of 256 bits with this label. */
  createKey(label: string, options?: { readonly extractable?: boolean }): void;
  /** Ends every session of this process, and with them its login. */
  endSessions(): void;
  remove(): void;
}

/** A token of its own; one in a process, since the library reads where its tokens are once. */
export function createToken({ binding, libraryPath }: SoftHsm): SoftHsmToken {
  const folder = mkdtempSync(join(tmpdir(), 'token-gateway-softhsm-'));
  mkdirSync(join(folder, 'tokens'));
  const configuration = join(folder, 'softhsm2.conf');
  writeFileSync(configuration, `directories.tokendir = ${join(folder, 'tokens')}\nlog.level = ERROR\n`);
  process.env['SOFTHSM2_CONF'] = configuration;

  const label = 'token-gateway';
  const pin = '123456';
  const library = new binding.PKCS11() as Library & TokenMaker;
  library.load(libraryPath);
  library.C_Initialize({ flags: binding.CKF_OS_LOCKING_OK });
  const [empty] = library.C_GetSlotList(true);
  if (empty === undefined) throw new Error('no slot');
  // PKCS#11 pads labels with blanks to 32 bytes; the binding does not.
  library.C_InitToken(empty, 'security officer', label.padEnd(32));
  // An initialised token gets a new slot.
  const slot = library.C_GetSlotList(true).find((each) => library.C_GetTokenInfo(each).label.trimEnd() === label);
  if (slot === undefined) throw new Error('no token');
  const closeAll = (): void => library.C_CloseAllSessions(slot);
  const open = (): Buffer => library.C_OpenSession(slot, binding.CKF_SERIAL_SESSION | binding.CKF_RW_SESSION);
  withSession(binding.CKU_SO, 'security officer', (session) => library.C_InitPIN(session, pin));

  function withSession(userType: number, secret: string, use: (session: Buffer) => void): void {
    closeAll();
    const session = open();
    library.C_Login(session, userType, secret);
    try {
      use(session);
    } finally {
      closeAll();
    }
  }

  return {
    label,
    pin,
    createKey(keyLabel, { extractable = false } = {}) {
      const attributes: [number, unknown][] = [
        [binding.CKA_CLASS, binding.CKO_SECRET_KEY],
        [binding.CKA_KEY_TYPE, binding.CKK_AES],
        [binding.CKA_VALUE_LEN, 32],
        [binding.CKA_LABEL, keyLabel],
        [binding.CKA_TOKEN, true],
        [binding.CKA_PRIVATE, true],
        [binding.CKA_SENSITIVE, true],
        [binding.CKA_EXTRACTABLE, extractable],
        [binding.CKA_ENCRYPT, true],
        [binding.CKA_DECRYPT, true],
      ];
      const template = attributes.map(([type, value]) => ({ type, value }));
      const mechanism = { mechanism: binding.CKM_AES_KEY_GEN };
      withSession(binding.CKU_USER, pin, (session) => library.C_GenerateKey(session, mechanism, template));
    },
    endSessions: closeAll,
    remove: () => rmSync(folder, { recursive: true }),
  };
}

type Library = InstanceType<Pkcs11Binding['PKCS11']>;

type TestBinding = Pkcs11Binding &
  Readonly<
    Record<
      | 'CKA_DECRYPT'
      | 'CKA_ENCRYPT'
      | 'CKA_PRIVATE'
      | 'CKA_TOKEN'
      | 'CKA_VALUE_LEN'
      | 'CKF_RW_SESSION'
      | 'CKM_AES_KEY_GEN'
      | 'CKU_SO',
      number
    >
  >;

/** What of `pkcs11js` the product itself does not use. */
interface TokenMaker {
  C_InitToken(slot: Buffer, pin: string, label: string): void;
  C_InitPIN(session: Buffer, pin: string): void;
  C_CloseAllSessions(slot: Buffer): void;
  C_GenerateKey(
    session: Buffer,
    mechanism: { readonly mechanism: number },
    template: readonly { readonly type: number; readonly value: unknown }[],
  ): void;
}
