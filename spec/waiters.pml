/*
 * Single flight: requests that come while an exchange is under way wait for it, and what they get is as old as its
 * question. Nothing is cached here; no signal and no watermark arrives.
 */
bool committed = false, late = false;
bool isUnderWay = false, askedBefore = false; /* the flight, and whether it was asked before the revocation */
byte waiting = 0;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

/* D has passed since the revocation: so has the age bound of what was asked before it, which is never longer. */
#define isTooOld(before) (before && late)

active proctype Identity() { committed = true }

active proctype Clock() {
end:
  atomic {
    committed -> late = true
#ifdef REACH_LATE
    ; if :: isUnderWay && askedBefore && waiting > 0 -> assert(false) :: else fi
#endif
  }
}

active proctype Requests() {
  byte count = 0;
end:
  do
  :: atomic { count < 3 && isUnderWay -> count++; waiting++ }
  od
}

active proctype Exchange() {
  byte count = 0; bool isRevoked;
end:
  do
  :: count < 2 ->
     count++;
     atomic { isUnderWay = true; askedBefore = !committed };
     isRevoked = committed;
     /* the answer may take its time */
     atomic {
       isUnderWay = false;
       if
       :: isRevoked
       :: !isRevoked ->
          if :: isTooOld(askedBefore) :: else -> accept() fi;
          do
          :: waiting > 0 ->
             waiting--;
#ifdef WAITERS_COUNT_FROM_THE_ANSWER
             if :: isTooOld(!committed) :: else -> accept() fi
#else
             if :: isTooOld(askedBefore) :: else -> accept() fi
#endif
          :: else -> break
          od
       fi;
       waiting = 0; askedBefore = false; isRevoked = false
     }
  od
}
