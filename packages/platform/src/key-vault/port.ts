/** Seals what a service stores and has to read again, so that a dump of its database is of no use. */
export interface KeyVault {
  /** Seals under the newest key-encryption key; `context` says what it is and whose, and is needed to open it. */
  seal(plaintext: Uint8Array, context: string): Promise<Uint8Array>;
  /**
   * Rejects with `sealed_data_invalid` what was not sealed for this very context, and with `key_vault_unavailable` where
   * the key-encryption key is not known or cannot be used.
   */
  open(sealed: Uint8Array, context: string): Promise<Uint8Array>;
  /** Whether it is sealed under the newest key-encryption key; else it is to be sealed anew before the older one goes. */
  isCurrent(sealed: Uint8Array): boolean;
  close(): Promise<void>;
}
