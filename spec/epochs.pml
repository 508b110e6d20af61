/*
 * A promotion: epoch 1 had two changes, its successor starts without them and then commits the revocation as its first.
 * An entry of epoch 1 has asOf 2. The old primary is fenced before identity serves the new epoch, so nothing is read from
 * it after that; with OLD_ANSWERS it still answers gateways that know the new epoch.
 */
byte epoch = 1, db = 2;
bool committed = false, late = false;
bool fresh = false, pre = false;
byte known = 1;       /* the gateway's epoch */
byte applied = 2;
byte entryEpoch = 1;  /* of the cached entry; its asOf is 2 in epoch 1 and 0 in epoch 2 */
bool tombstone = false;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif
#ifdef NO_EPOCH_CHECK
#define isOfThisEpoch true
#else
#define isOfThisEpoch (entryEpoch == known)
#endif
#define isTombstoned (tombstone && !(entryEpoch == 1))

inline read(e, s) {
  atomic {
    if
    :: e = epoch; s = db
#ifdef NO_FENCE
    :: epoch == 2 -> e = 1; s = 2
#endif
#ifdef OLD_ANSWERS
    :: epoch == 2 && known == 2 -> e = 1; s = 2
#endif
    fi
  }
}

active proctype Identity() {
  atomic { epoch = 2; db = 0 };
  atomic { db = 1; committed = true }
}

active proctype Clock() {
end:
  atomic {
    committed && !(fresh && pre) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

inline learn(e, s, before) {
  atomic {
    if
#ifdef SMALLER_EPOCH_GRANTS
    :: e < known -> fresh = true; pre = before
#else
    :: e < known
#endif
    :: e > known ->
       known = e; applied = s; fresh = false; tombstone = (s >= 1);
       if :: before && late :: else -> fresh = true; pre = before fi
    :: e == known ->
       if
       :: s < applied
       :: else ->
          if :: e == 2 && s >= 1 -> tombstone = true :: else fi;
          applied = s;
          if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi
       fi
    fi
  }
}

active proctype Watermarks() {
  byte e, s, count = 0; bool before;
end:
  do
  :: count < 3 ->
     count++;
     before = !committed;
     read(e, s);
     learn(e, s, before);
     e = 0; s = 0; before = false
  od
}

active proctype Gateway() {
  byte e, s, count = 0; bool before;
end:
  do
  :: fresh -> fresh = false
  :: atomic { isOfThisEpoch && fresh && !isTombstoned -> accept() }
  :: count < 2 ->
     count++;
     before = !committed;
     read(e, s);
     if
     :: e == 2 && s >= 1 /* refused */
     :: else ->
        atomic {
          if
#ifndef OLD_EXCHANGE_IS_USED
          :: e < known /* read in a history that has been replaced */
#else
          :: e < known -> if :: before && late :: else -> accept() fi
#endif
          :: e > known -> if :: before && late :: else -> accept() fi
          :: e == known ->
             if
             :: e == 2 && tombstone
             :: else -> if :: before && late && !fresh :: else -> accept(); entryEpoch = e fi
             fi
          fi
        }
     fi;
     e = 0; s = 0; before = false
  od
}
