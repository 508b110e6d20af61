/** What a proxy has around it; servers of this machine that listen on 0.0.0.0. */
export interface Surroundings {
  readonly forwardAuthPort: number;
  readonly extAuthzPort: number;
  /** Where the gateway says that it is ready. */
  readonly healthPort: number;
  readonly servicePort: number;
}

export interface RunningProxy {
  readonly url: string;
  stop(): Promise<void>;
}

/** A proxy as people run it, with the sample configuration of `deploy/`. */
export interface EdgeProxy {
  readonly name: string;
  /** Resolves to its version; rejects, saying why, where it cannot be had. */
  prepare(): Promise<string>;
  start(surroundings: Surroundings): Promise<RunningProxy>;
}
