import type { Logger } from '../telemetry.ts';
import type { SignalListener } from './port.ts';

/** The listener, made unable to break whoever calls it: what it throws is logged. */
export function guardListener(listener: SignalListener, name: string, logger?: Logger): Required<SignalListener> {
  function guard<Args extends unknown[]>(call: (...args: Args) => void): (...args: Args) => void {
    return (...args) => {
      try {
        call(...args);
      } catch (error) {
        logger?.error({ source: name, err: error }, 'signal listener failed');
      }
    };
  }
  return {
    onChange: guard((change) => listener.onChange(change)),
    onPurge: guard((target) => listener.onPurge(target)),
    onHeartbeat: guard((heartbeat) => listener.onHeartbeat(heartbeat)),
    onMalformed: guard(() => listener.onMalformed?.()),
    onConnected: guard(() => listener.onConnected()),
    onDisconnected: guard(() => listener.onDisconnected()),
  };
}
