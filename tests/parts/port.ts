/** A real component under test: a process of its own, that tests start, break and mend. */
export interface Part extends AsyncDisposable {
  readonly name: string;
  /** Stops the process from running without closing its connections (SIGSTOP, docker pause). */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** SIGKILL; what it had stored stays. */
  kill(): Promise<void>;
  /** Asks it to end, as an operator does; what it had stored stays. */
  shutDown(): Promise<void>;
  /** Starts it again after it ended, on the same address and with the same data; resolves when it answers. */
  restart(): Promise<void>;
  /** Resolves when it answers; starts it again where it had ended by itself. */
  recover(): Promise<void>;
  /** Ends it, in whatever state it is, and removes its data. Stopping twice does nothing. */
  stop(): Promise<void>;
}

/** The disk of a part that has one of its own. */
export interface PartDisk {
  /** Leaves no room on it. */
  fill(): Promise<void>;
  /** Makes room again. */
  free(): Promise<void>;
}

export interface DiskOptions {
  /** Its data on a small disk of its own, which takes root. Default: false. */
  readonly ownDisk?: boolean;
}

export interface PostgresPart extends Part {
  readonly disk: PartDisk | null;
  /** postgres://user:password@host:port/database of an empty database; each call makes a new one. */
  createDatabase(): Promise<string>;
  /** Makes a copy of it that follows it from then on; it is stopped together with this one. */
  standby(options?: StandbyOptions): Promise<StandbyPart>;
}

export interface StandbyOptions {
  /** Whether commits wait for this standby. Default: false. */
  readonly synchronous?: boolean;
}

export interface StandbyPart extends PostgresPart {
  /** Where it has what its primary has at this URL. */
  urlOf(primaryUrl: string): string;
  /** Ends the replication: what is committed from now on is lacking here. */
  detach(): Promise<void>;
  /** Resolves when it takes writes. */
  promote(): Promise<void>;
}

export interface KafkaPart extends Part {
  readonly disk: PartDisk | null;
  readonly brokers: readonly string[];
}

export interface RedisPart extends Part {
  /** redis://host:port */
  readonly url: string;
}

export interface EnvoyPart extends Part {
  /** http://host:port of the first listener */
  readonly url: string;
  readonly adminUrl: string;
}

export interface KeycloakPart extends Part {
  /** http://host:port; each realm is at /realms/NAME below it. */
  readonly url: string;
  /** Name under which it reaches servers of this machine; they listen on 0.0.0.0. */
  readonly hostname: string;
  /** Makes a realm, with its clients and users, of a realm representation. */
  createRealm(realm: Readonly<Record<string, unknown>>): Promise<void>;
}

export interface RedisOptions {
  /** Redis `notify-keyspace-events` flags. Default: 'Egx' (generic and expired key events). */
  readonly notifyKeyspaceEvents?: string;
}

/** Where a configuration of Envoy finds its surroundings. */
export interface EnvoyAddress {
  /** Name under which Envoy reaches servers of the test process; they listen on 0.0.0.0. */
  readonly hostname: string;
  /** Port that the listener under test takes, on 0.0.0.0. */
  readonly listenerPort: number;
  /** Port that the admin page takes, on 0.0.0.0. */
  readonly adminPort: number;
}

export type PartName = 'postgres' | 'kafka' | 'redis' | 'envoy' | 'keycloak';

/** Starts real parts; each call starts one more, and resolves when it answers. */
export interface Parts {
  postgres(options?: DiskOptions): Promise<PostgresPart>;
  kafka(options?: DiskOptions): Promise<KafkaPart>;
  redis(options?: RedisOptions): Promise<RedisPart>;
  /** Envoy with the YAML that `config` returns. */
  envoy(config: (address: EnvoyAddress) => string): Promise<EnvoyPart>;
  keycloak(): Promise<KeycloakPart>;
}

/** Where real parts come from: containers (testcontainers) or native processes. */
export interface PartsProvider extends Parts {
  readonly name: 'containers' | 'native';
  /**
   * Gets what a part needs (pulls its image, installs its binary) and resolves to what that is, with its version;
   * rejects, saying why, where it cannot be had.
   */
  prepare(part: PartName): Promise<string>;
}
