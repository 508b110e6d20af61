/** A real component under test: a process of its own, that tests start, break and mend. */
export interface Part extends AsyncDisposable {
  readonly name: string;
  /** Stops the process from running without closing its connections (SIGSTOP, docker pause). */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** SIGKILL; what it had stored stays. */
  kill(): Promise<void>;
  /** Starts it again after kill, on the same address and with the same data; resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

export interface PostgresPart extends Part {
  /** postgres://user:password@host:port/database of an empty database; each call makes a new one. */
  createDatabase(): Promise<string>;
}

export interface KafkaPart extends Part {
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

export interface RedisOptions {
  /** Redis `notify-keyspace-events` flags. Default: 'Egx' (generic and expired key events). */
  readonly notifyKeyspaceEvents?: string;
}

/** Where real parts come from: containers (testcontainers) or native processes. */
export interface PartsProvider {
  readonly name: 'containers' | 'native';
  /** Null when this provider works here, else why not. */
  unavailable(): Promise<string | null>;
  postgres(): Promise<PostgresPart>;
  kafka(): Promise<KafkaPart>;
  redis(options?: RedisOptions): Promise<RedisPart>;
  /**
   * Envoy with the YAML that `config` makes of the name under which Envoy reaches servers of the test process (they
   * listen on 0.0.0.0), and of the ports its listener and its admin page have to take.
   */
  envoy(config: (address: { hostname: string; listenerPort: number; adminPort: number }) => string): Promise<EnvoyPart>;
}
