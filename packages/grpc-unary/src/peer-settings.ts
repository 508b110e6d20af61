import { ConnectionError, errorCode, frameSizeMax, initialWindow, setting, windowMax } from './frame.ts';
import { settingsMax } from './limits.ts';

const settingOctets = 6;
const allowedFrameSizeMax = 2 ** 24 - 1;

/** What the peer allows (RFC 9113 section 6.5.2), as far as it matters to a server that never pushes. */
export class PeerSettings {
  frameSizeMax = frameSizeMax;
  initialWindow = initialWindow;
  /** The next header block begins with a size update (RFC 7541 section 4.2). */
  isSizeUpdateDue = false;

  /** Takes a SETTINGS frame, entry by entry; returns the change of the initial window. Throws ConnectionError. */
  apply(bytes: Buffer, start: number, end: number): number {
    const count = (end - start) / settingOctets;
    if (!Number.isInteger(count)) throw new ConnectionError(errorCode.frameSizeError, 'SETTINGS of a wrong length');
    if (count > settingsMax) throw new ConnectionError(errorCode.enhanceYourCalm, 'too many settings');
    const before = this.initialWindow;
    for (let offset = start; offset < end; offset += settingOctets) {
      this.#set(bytes.readUInt16BE(offset), bytes.readUInt32BE(offset + 2));
    }
    return this.initialWindow - before;
  }

  #set(id: number, value: number): void {
    switch (id) {
      case setting.headerTableSize:
        this.isSizeUpdateDue = true;
        return;
      case setting.enablePush:
        if (value > 1) throw new ConnectionError(errorCode.protocolError, 'ENABLE_PUSH is neither 0 nor 1');
        return;
      case setting.initialWindowSize:
        if (value > windowMax) throw new ConnectionError(errorCode.flowControlError, 'too large an initial window');
        this.initialWindow = value;
        return;
      case setting.maxFrameSize:
        if (value < frameSizeMax || value > allowedFrameSizeMax) {
          throw new ConnectionError(errorCode.protocolError, 'MAX_FRAME_SIZE is out of bounds');
        }
        this.frameSizeMax = value;
    }
  }
}
